/* A stand-in of NVIDIA's driver library: the calls of its public API that framelane makes, in host memory.

   Device memory is host memory of a set size. Streams are queues whose work is done as late as possible, when somebody
   waits for it, so that a forgotten wait gives a wrong answer instead of a lucky one. Time is virtual: each stream has
   a clock, copies and kernels take as long as they are told to, events tie the clocks, and the host's clock moves only
   where the host waits. Nothing sleeps, and every run gives the same times. `standin_*` are for tests. */

#include "device_state.h"

/* ---- device and context ---- */

CUresult cuInit(unsigned flags) {
    LOCKED;
    CUresult code = fault("cuInit");
    (void)flags;
    if (code) return code;
    if (!num_devices) return 100;
    initialised = 1;
    return SUCCESS;
}
CUresult cuDriverGetVersion(int *version) { *version = 13000; return SUCCESS; }
CUresult cuDeviceGetCount(int *count) {
    LOCKED;
    CUresult code = enter("cuDeviceGetCount", 0);
    *count = num_devices;
    return code;
}
CUresult cuDeviceGet(int *device, int ordinal) {
    LOCKED;
    CUresult code = enter("cuDeviceGet", 0);
    if (code) return code;
    if (ordinal < 0 || ordinal >= num_devices) return INVALID_DEVICE;
    *device = ordinal;
    return SUCCESS;
}
CUresult cuDevicePrimaryCtxRetain(void **context, int device) {
    LOCKED;
    CUresult code = enter("cuDevicePrimaryCtxRetain", 0);
    if (code) return code;
    if (device < 0 || device >= num_devices) return INVALID_DEVICE;
    counts[COUNT_CONTEXTS]++;
    *context = &context_;
    return SUCCESS;
}
CUresult cuDevicePrimaryCtxRelease(int device) {
    LOCKED;
    CUresult code = fault("cuDevicePrimaryCtxRelease");
    (void)device;
    if (code && !lost_code) return code;
    if (counts[COUNT_CONTEXTS] < 1) return misuse(INVALID_CONTEXT);
    if (!--counts[COUNT_CONTEXTS]) current = NULL;
    LEAVE_FREE;
}
CUresult cuCtxSetCurrent(void *context) {
    LOCKED;
    CUresult code = enter("cuCtxSetCurrent", 0);
    if (context && (context != &context_ || !counts[COUNT_CONTEXTS])) return misuse(INVALID_CONTEXT);
    current = context;
    return code;
}

/* ---- memory ---- */

CUresult cuMemGetInfo(size_t *free_bytes, size_t *all_bytes) {
    ENTER("cuMemGetInfo");
    *all_bytes = (size_t)total_bytes;
    *free_bytes = (size_t)(total_bytes - counts[COUNT_DEVICE_BYTES]);
    return SUCCESS;
}

static CUresult allocate(void **address, size_t bytes, int pinned) {
    CUresult code = not_while_capturing();
    if (code) return code;
    if (!bytes) return INVALID_VALUE;
    if (!pinned && counts[COUNT_DEVICE_BYTES] + (int64_t)bytes > total_bytes) return OUT_OF_MEMORY;
    Block *block = calloc(1, sizeof(Block));
    if (posix_memalign(&block->address, 512, bytes)) return OUT_OF_MEMORY;
    memset(block->address, 0xA5, bytes); /* nobody may count on zeros */
    block->bytes = bytes;
    block->pinned = pinned;
    block->live = 1;
    block->next = blocks;
    blocks = block;
    counts[pinned ? COUNT_PINNED_BLOCKS : COUNT_DEVICE_BLOCKS]++;
    if (!pinned) counts[COUNT_DEVICE_BYTES] += (int64_t)bytes;
    if (counts[COUNT_DEVICE_BYTES] > counts[COUNT_PEAK_BYTES]) counts[COUNT_PEAK_BYTES] = counts[COUNT_DEVICE_BYTES];
    *address = block->address;
    return SUCCESS;
}

static CUresult release(void *address, int pinned) {
    for (Block *b = blocks; b; b = b->next)
        if (b->address == address && b->live && b->pinned == pinned) {
            b->live = 0;
            free(b->address);
            counts[pinned ? COUNT_PINNED_BLOCKS : COUNT_DEVICE_BLOCKS]--;
            if (!pinned) counts[COUNT_DEVICE_BYTES] -= (int64_t)b->bytes;
            LEAVE_FREE;
        }
    return misuse(INVALID_VALUE); /* freed twice, or never allocated */
}

CUresult cuMemAlloc(uint64_t *address, size_t bytes) {
    ENTER("cuMemAlloc");
    return allocate((void **)address, bytes, 0);
}
CUresult cuMemFree(uint64_t address) { ENTER_FREE("cuMemFree"); return release((void *)address, 0); }
CUresult cuMemHostAlloc(void **address, size_t bytes, unsigned flags) {
    ENTER("cuMemHostAlloc");
    (void)flags;
    return allocate(address, bytes, 1);
}
CUresult cuMemFreeHost(void *address) { ENTER_FREE("cuMemFreeHost"); return release(address, 1); }

static CUresult copy(int kind, void *target, void *source, size_t bytes, Stream *stream) {
    Block *to = block_of(target, bytes), *from = block_of(source, bytes);
    if (!to || !from || to->pinned != (kind == DOWNLOAD) || from->pinned != (kind == UPLOAD))
        return misuse(INVALID_VALUE);
    Work work = {.kind = kind, .target = target, .source = source, .bytes = bytes};
    work.duration_ns = (int64_t)((bytes + 1023) / 1024) * copy_ns_per_kib;
    return give_work(stream, work);
}
CUresult cuMemcpyHtoDAsync(uint64_t target, void *source, size_t bytes, Stream *stream) {
    ENTER("cuMemcpyHtoDAsync");
    return copy(UPLOAD, (void *)target, source, bytes, stream);
}
CUresult cuMemcpyDtoHAsync(void *target, uint64_t source, size_t bytes, Stream *stream) {
    ENTER("cuMemcpyDtoHAsync");
    return copy(DOWNLOAD, target, (void *)source, bytes, stream);
}

/* ---- streams and events; handles are never reused, so that a second destruction is seen ---- */

CUresult cuStreamCreate(Stream **stream, unsigned flags) {
    ENTER("cuStreamCreate");
    (void)flags;
    *stream = calloc(1, sizeof(Stream));
    (*stream)->handle = (Handle){STREAM, 1};
    (*stream)->index = num_streams++;
    counts[COUNT_STREAMS]++;
    return SUCCESS;
}
CUresult cuStreamDestroy(Stream *stream) {
    ENTER_FREE("cuStreamDestroy");
    if (!is(stream, STREAM)) return misuse(INVALID_HANDLE);
    do_until(stream, NULL, 0);
    stream->handle.live = 0;
    counts[COUNT_STREAMS]--;
    LEAVE_FREE;
}
CUresult cuStreamSynchronize(Stream *stream) {
    ENTER("cuStreamSynchronize");
    if (!is(stream, STREAM)) return misuse(INVALID_HANDLE);
    if (stream->capturing) { stream->spoiled = 1; return CAPTURE_UNSUPPORTED; }
    do_until(stream, NULL, 0);
    if (stream->clock_ns > host_ns) host_ns = stream->clock_ns;
    return lost_code;
}
CUresult cuEventCreate(Event **event, unsigned flags) {
    ENTER("cuEventCreate");
    (void)flags;
    *event = calloc(1, sizeof(Event));
    (*event)->handle = (Handle){EVENT, 1};
    counts[COUNT_EVENTS]++;
    return SUCCESS;
}
CUresult cuEventDestroy(Event *event) {
    ENTER_FREE("cuEventDestroy");
    if (!is(event, EVENT)) return misuse(INVALID_HANDLE);
    event->handle.live = 0;
    counts[COUNT_EVENTS]--;
    LEAVE_FREE;
}
CUresult cuEventRecord(Event *event, Stream *stream) {
    ENTER("cuEventRecord");
    if (!is(event, EVENT)) return misuse(INVALID_HANDLE);
    CUresult code = give_work(stream, (Work){.kind = RECORD, .event = event, .generation = event->recorded + 1});
    if (code) return code;
    event->recorded++;
    event->stream = stream;
    return SUCCESS;
}
CUresult cuStreamWaitEvent(Stream *stream, Event *event, unsigned flags) {
    ENTER("cuStreamWaitEvent");
    (void)flags;
    if (!is(event, EVENT)) return misuse(INVALID_HANDLE);
    return give_work(stream, (Work){.kind = WAIT, .event = event, .generation = event->recorded});
}
CUresult cuEventSynchronize(Event *event) {
    {
        ENTER("cuEventSynchronize");
        if (!is(event, EVENT)) return misuse(INVALID_HANDLE);
    }
    if (event->done < event->recorded) call_hook(); /* without the lock: here the host would be blocked */
    LOCKED;
    if (event->done < event->recorded) do_until(event->stream, event, event->recorded);
    if (event->done_ns > host_ns) host_ns = event->done_ns;
    return lost_code;
}

/* ---- graphs ---- */

CUresult cuStreamBeginCapture(Stream *stream, int mode) {
    ENTER("cuStreamBeginCapture");
    if (!is(stream, STREAM) || stream->capturing || mode < 0) return misuse(INVALID_VALUE);
    stream->capturing = 1;
    stream->spoiled = 0;
    stream->captured.count = 0;
    thread_capture = stream;
    return SUCCESS;
}
CUresult cuStreamEndCapture(Stream *stream, Graph **graph) {
    LOCKED;
    *graph = NULL;
    if (!is(stream, STREAM) || !stream->capturing) return misuse(INVALID_VALUE);
    stream->capturing = 0;
    thread_capture = NULL;
    CUresult code = enter("cuStreamEndCapture", 1);
    if (code) return code;
    if (stream->spoiled) return CAPTURE_INVALIDATED;
    *graph = calloc(1, sizeof(Graph));
    (*graph)->handle = (Handle){GRAPH, 1};
    for (size_t i = 0; i < stream->captured.count; i++) append(&(*graph)->work, stream->captured.items[i]);
    counts[COUNT_GRAPHS]++;
    return SUCCESS;
}
CUresult cuGraphInstantiateWithFlags(Graph **executable, Graph *graph, unsigned long long flags) {
    ENTER("cuGraphInstantiate");
    (void)flags;
    if (!is(graph, GRAPH)) return misuse(INVALID_HANDLE);
    *executable = calloc(1, sizeof(Graph));
    (*executable)->handle = (Handle){EXECUTABLE, 1};
    for (size_t i = 0; i < graph->work.count; i++) append(&(*executable)->work, graph->work.items[i]);
    counts[COUNT_EXECUTABLES]++;
    return SUCCESS;
}
CUresult cuGraphLaunch(Graph *executable, Stream *stream) {
    ENTER("cuGraphLaunch");
    if (!is(executable, EXECUTABLE)) return misuse(INVALID_HANDLE);
    for (size_t i = 0; i < executable->work.count; i++) {
        CUresult code = give_work(stream, executable->work.items[i]);
        if (code) return code;
    }
    return SUCCESS;
}
static CUresult destroy(Graph *graph, int magic, int count) {
    if (!is(graph, magic)) return misuse(INVALID_HANDLE);
    graph->handle.live = 0;
    counts[count]--;
    LEAVE_FREE;
}
CUresult cuGraphDestroy(Graph *graph) { ENTER_FREE("cuGraphDestroy"); return destroy(graph, GRAPH, COUNT_GRAPHS); }
CUresult cuGraphExecDestroy(Graph *executable) {
    ENTER_FREE("cuGraphExecDestroy");
    return destroy(executable, EXECUTABLE, COUNT_EXECUTABLES);
}

/* ---- how cuda.bindings finds the calls ---- */

#define CALL(name) {#name, (void *)name}
static const struct { const char *name; void *function; } EXPORTS[] = {
    CALL(cuInit), CALL(cuDriverGetVersion), CALL(cuDeviceGetCount), CALL(cuDeviceGet), CALL(cuDevicePrimaryCtxRetain),
    CALL(cuDevicePrimaryCtxRelease), CALL(cuCtxSetCurrent), CALL(cuMemGetInfo), CALL(cuMemAlloc), CALL(cuMemFree),
    CALL(cuMemHostAlloc), CALL(cuMemFreeHost), CALL(cuMemcpyHtoDAsync), CALL(cuMemcpyDtoHAsync), CALL(cuStreamCreate),
    CALL(cuStreamDestroy), CALL(cuStreamSynchronize), CALL(cuEventCreate), CALL(cuEventDestroy), CALL(cuEventRecord),
    CALL(cuStreamWaitEvent), CALL(cuEventSynchronize), CALL(cuStreamBeginCapture), CALL(cuStreamEndCapture),
    CALL(cuGraphInstantiateWithFlags), {"cuGraphInstantiate", (void *)cuGraphInstantiateWithFlags}, CALL(cuGraphLaunch),
    CALL(cuGraphDestroy), CALL(cuGraphExecDestroy)};

CUresult cuGetProcAddress_v2(const char *symbol, void **function, int version, uint64_t flags, int *status) {
    (void)version, (void)flags;
    *function = NULL;
    for (size_t i = 0; i < sizeof(EXPORTS) / sizeof(EXPORTS[0]); i++)
        if (!strcmp(EXPORTS[i].name, symbol)) *function = EXPORTS[i].function;
    if (status) *status = *function ? 0 : 1;
    return *function ? SUCCESS : NOT_FOUND;
}
CUresult cuGetProcAddress(const char *symbol, void **function, int version, uint64_t flags) {
    return cuGetProcAddress_v2(symbol, function, version, flags, NULL);
}

/* ---- for tests ---- */

/* Give a stream a kernel: `function(token)` is called when its turn comes, and takes `duration_ns` of virtual time. */
CUresult standin_launch(Stream *stream, KernelFunction function, uint64_t token, int64_t duration_ns) {
    ENTER("standin_launch");
    return give_work(stream, (Work){.kind = KERNEL, .function = function, .token = token, .duration_ns = duration_ns});
}
/* Whether device memory is there, for kernels that are about to use it. */
int standin_holds(uint64_t address, size_t bytes) {
    LOCKED;
    Block *block = block_of((void *)address, bytes);
    return block && !block->pinned;
}
/* Let the nth next call of a name fail; a lasting fault is a lost device. "kernel" fails while it runs. */
void standin_fail(const char *name, int64_t nth, int code, int lasting) {
    LOCKED;
    for (int i = 0; i < MAX_FAULTS; i++)
        if (faults[i].nth <= 0) {
            strncpy(faults[i].name, name, NAME_SIZE - 1);
            faults[i].nth = nth, faults[i].code = code, faults[i].lasting = lasting;
            return;
        }
}
/* Called once, by the next wait of the host for an event that has not happened. */
void standin_on_wait(WaitHook hook) { LOCKED; wait_hook = hook; }
void standin_set(int64_t device_bytes, int devices, int64_t ns_per_kib) {
    LOCKED;
    total_bytes = device_bytes, num_devices = devices, copy_ns_per_kib = ns_per_kib;
}
int64_t standin_count(const char *name) {
    LOCKED;
    for (int i = 0; i < NUM_COUNTS; i++) if (!strcmp(COUNT_NAMES[i], name)) return counts[i];
    for (int i = 0; i < MAX_NAMES; i++) if (!strcmp(calls[i].name, name)) return calls[i].count;
    return 0;
}
int standin_timeline(Entry *entries, int room) {
    LOCKED;
    int size = timeline_size < room ? timeline_size : room;
    memcpy(entries, timeline, (size_t)size * sizeof(Entry));
    timeline_size = 0;
    return size;
}
/* A new device: faults, loss and counts of calls are forgotten. What is still allocated stays counted. */
void standin_reset(void) {
    LOCKED;
    memset(faults, 0, sizeof faults);
    memset(calls, 0, sizeof calls);
    lost_code = 0, timeline_size = 0, host_ns = 0, wait_hook = NULL;
    counts[COUNT_PEAK_BYTES] = counts[COUNT_DEVICE_BYTES];
    counts[COUNT_MISUSES] = 0;
    total_bytes = 1LL << 30, num_devices = 1, copy_ns_per_kib = 1000;
}
