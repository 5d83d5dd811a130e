/* The stand-in's device: what is allocated, what streams have still to do, and the virtual clock. See libcuda.c. */

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

typedef int CUresult;
typedef int (*KernelFunction)(uint64_t token);
typedef void (*WaitHook)(void);

enum {
    SUCCESS = 0, INVALID_VALUE = 1, OUT_OF_MEMORY = 2, NOT_INITIALIZED = 3, INVALID_DEVICE = 101, INVALID_CONTEXT = 201,
    INVALID_HANDLE = 400, NOT_FOUND = 500, CAPTURE_UNSUPPORTED = 900, CAPTURE_INVALIDATED = 901
};
enum { UPLOAD = 1, DOWNLOAD, KERNEL, RECORD, WAIT };
enum { MAX_FAULTS = 16, MAX_NAMES = 64, MAX_TIMELINE = 65536, NAME_SIZE = 48 };

typedef struct Event Event;
typedef struct {
    int kind;
    void *target, *source;
    size_t bytes;
    KernelFunction function;
    uint64_t token;
    int64_t duration_ns, given_ns;
    Event *event;
    int64_t generation;
} Work;

typedef struct { Work *items; size_t count, room; } WorkList;
typedef struct Handle { int magic, live; } Handle;
typedef struct {
    Handle handle;
    WorkList queue, captured;
    size_t done;
    int64_t clock_ns;
    int index, capturing, spoiled;
} Stream;
struct Event { Handle handle; Stream *stream; int64_t recorded, done, done_ns; };
typedef struct { Handle handle; WorkList work; } Graph;
typedef struct Block { void *address; size_t bytes; int pinned, live; struct Block *next; } Block;
typedef struct { int kind, stream; int64_t start_ns, end_ns, bytes; } Entry;

enum { STREAM = 0x51, EVENT = 0x52, GRAPH = 0x53, EXECUTABLE = 0x54 };
enum { COUNT_DEVICE_BLOCKS, COUNT_DEVICE_BYTES, COUNT_PEAK_BYTES, COUNT_PINNED_BLOCKS, COUNT_STREAMS, COUNT_EVENTS,
       COUNT_GRAPHS, COUNT_EXECUTABLES, COUNT_CONTEXTS, COUNT_MISUSES, NUM_COUNTS };
static const char *const COUNT_NAMES[NUM_COUNTS] = {
    "device_blocks", "device_bytes", "peak_bytes", "pinned_blocks", "streams", "events", "graphs", "executables",
    "contexts", "misuses"};

static pthread_mutex_t lock_;
static pthread_once_t once_ = PTHREAD_ONCE_INIT;
static int64_t counts[NUM_COUNTS], total_bytes = 1LL << 30, host_ns, copy_ns_per_kib = 1000;
static int num_devices = 1, initialised, lost_code, num_streams;
static Block *blocks;
static Entry timeline[MAX_TIMELINE];
static int timeline_size;
static struct { char name[NAME_SIZE]; int64_t nth; int code, lasting; } faults[MAX_FAULTS];
static struct { char name[NAME_SIZE]; int64_t count; } calls[MAX_NAMES];
static WaitHook wait_hook;
static int context_;
static __thread void *current;
static __thread Stream *thread_capture;

static void make_lock(void) {
    pthread_mutexattr_t attributes;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_RECURSIVE);
    pthread_mutex_init(&lock_, &attributes);
}
static int take(void) { pthread_once(&once_, make_lock); pthread_mutex_lock(&lock_); return 1; }
static void give(int *taken) { (void)taken; pthread_mutex_unlock(&lock_); }
#define LOCKED int taken_ __attribute__((cleanup(give), unused)) = take()

static CUresult misuse(CUresult code) { counts[COUNT_MISUSES]++; return code; }

/* Count a call, and answer the fault that a test has set for it. */
static CUresult fault(const char *name) {
    for (int i = 0; i < MAX_NAMES; i++) {
        if (!calls[i].name[0]) strncpy(calls[i].name, name, NAME_SIZE - 1);
        if (!strcmp(calls[i].name, name)) { calls[i].count++; break; }
    }
    for (int i = 0; i < MAX_FAULTS; i++)
        if (faults[i].nth > 0 && !strcmp(faults[i].name, name) && --faults[i].nth == 0) {
            if (faults[i].lasting) lost_code = faults[i].code;
            return faults[i].code;
        }
    return SUCCESS;
}

static CUresult enter(const char *name, int needs_context) {
    CUresult code = fault(name);
    if (code) return code;
    if (lost_code) return lost_code;
    if (!initialised) return NOT_INITIALIZED;
    return needs_context && !current ? misuse(INVALID_CONTEXT) : SUCCESS;
}
#define ENTER(name) LOCKED; do { CUresult code_ = enter(name, 1); if (code_) return code_; } while (0)
/* What frees does so on a lost device too, so that a test sees whether all of it was tried. */
#define ENTER_FREE(name) LOCKED; do { \
        CUresult code_ = fault(name); \
        if (code_ && !lost_code) return code_; \
        if (!current) return misuse(INVALID_CONTEXT); \
    } while (0)
#define LEAVE_FREE return lost_code

static void append(WorkList *list, Work work) {
    if (list->count == list->room) {
        list->room = list->room ? 2 * list->room : 16;
        list->items = realloc(list->items, list->room * sizeof(Work));
    }
    list->items[list->count++] = work;
}

static int is(const void *handle, int magic) {
    const Handle *h = handle;
    return h && h->magic == magic && h->live;
}

static Block *block_of(const void *address, size_t bytes) {
    const char *first = address;
    for (Block *b = blocks; b; b = b->next)
        if (b->live && first >= (char *)b->address && first + bytes <= (char *)b->address + b->bytes) return b;
    return NULL;
}

/* ---- doing work ---- */

static void note(int kind, Stream *stream, int64_t start_ns, int64_t bytes) {
    if (timeline_size < MAX_TIMELINE)
        timeline[timeline_size++] = (Entry){kind, stream->index, start_ns, stream->clock_ns, bytes};
}

static void do_until(Stream *stream, const Event *event, int64_t generation);

static void do_one(Stream *stream, Work *work) {
    if (lost_code) return;
    if (work->kind == WAIT) {
        if (work->event->done < work->generation) do_until(work->event->stream, work->event, work->generation);
        if (work->event->done_ns > stream->clock_ns) stream->clock_ns = work->event->done_ns;
        return;
    }
    if (work->given_ns > stream->clock_ns) stream->clock_ns = work->given_ns;
    if (work->kind == RECORD) {
        work->event->done = work->generation;
        work->event->done_ns = stream->clock_ns;
        return;
    }
    int64_t start_ns = stream->clock_ns;
    stream->clock_ns += work->duration_ns;
    note(work->kind, stream, start_ns, (int64_t)work->bytes);
    if (work->kind == KERNEL) {
        int code = fault("kernel");
        if (!code) code = work->function(work->token);
        if (code) lost_code = code;
    } else if (!block_of(work->target, work->bytes) || !block_of(work->source, work->bytes)) {
        counts[COUNT_MISUSES]++; /* freed while it was in use */
        lost_code = 700;
    } else {
        memcpy(work->target, work->source, work->bytes);
    }
}

/* Do a stream's work in order: all of it, or until an event has happened. */
static void do_until(Stream *stream, const Event *event, int64_t generation) {
    while (stream->done < stream->queue.count && !(event && event->done >= generation)) {
        Work work = stream->queue.items[stream->done++];
        do_one(stream, &work);
    }
    if (stream->done == stream->queue.count) stream->done = stream->queue.count = 0;
}

static CUresult give_work(Stream *stream, Work work) {
    if (!is(stream, STREAM)) return misuse(INVALID_HANDLE);
    work.given_ns = host_ns;
    if (stream->capturing) {
        if (work.kind == RECORD || work.kind == WAIT) { stream->spoiled = 1; return CAPTURE_UNSUPPORTED; }
        append(&stream->captured, work);
    } else append(&stream->queue, work);
    return SUCCESS;
}

static CUresult not_while_capturing(void) {
    if (!thread_capture) return SUCCESS;
    thread_capture->spoiled = 1;
    return CAPTURE_UNSUPPORTED;
}

static void call_hook(void) {
    WaitHook hook = wait_hook;
    wait_hook = NULL;
    if (hook) hook();
}
