/* A stand-in of NVML's public C API, for tests of code above the real `pynvml` on machines without a GPU.

   Every figure comes from the text file that STAND_IN_NVML names, read again at every call, so that a test can change it
   while a process runs. Lines are `key=value`; N is NVML's index of a GPU, and "N.mig." begins the keys of its one slice:

       count=2                          how many GPUs
       N.name= N.uuid= N.major= N.minor=
       N.total= N.free= N.used=         bytes
       N.utilisation=                   percent
       N.celsius= N.reasons= N.ecc=     reasons: bits, decimal
       N.mig_mode=1                     cut into slices
       error.CALL=15                    this call answers 15 for every GPU
       N.error.CALL=15                  and this one for one GPU or slice

   A figure that is missing answers NVML_ERROR_NOT_SUPPORTED. Compiled with -DOLD_DRIVER it lacks the calls that drivers
   before 535 do not have. */

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    SUCCESS = 0,
    UNINITIALIZED = 1,
    INVALID_ARGUMENT = 2,
    NOT_SUPPORTED = 3,
    NOT_FOUND = 6,
    INSUFFICIENT_SIZE = 7,
    ARGUMENT_VERSION_MISMATCH = 25
};
enum { MAX_GPUS = 8, TEXT = 256 };

typedef struct {
    int index;
    int is_slice;
} Device;

static Device gpus[MAX_GPUS], slices[MAX_GPUS];
static int num_starts; /* that were not stopped yet */

/* Find `key` in the file; 1 and its value if it is there. */
static int look_up(const char *key, char *value) {
    const char *path = getenv("STAND_IN_NVML");
    FILE *file = path ? fopen(path, "r") : NULL;
    char line[TEXT];
    size_t length = strlen(key);
    int found = 0;
    while (file && !found && fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = 0;
        if (!strncmp(line, key, length) && line[length] == '=') {
            strcpy(value, line + length + 1);
            found = 1;
        }
    }
    if (file) fclose(file);
    return found;
}

static int look_up_of(const Device *device, const char *name, char *value) {
    char key[TEXT];
    snprintf(key, sizeof key, "%d.%s%s", device->index, device->is_slice ? "mig." : "", name);
    return look_up(key, value);
}

/* The error that a test wants of this call, if any; and NVML's own rule that it must have been started. */
static int refusal(const char *call, const Device *device) {
    char key[TEXT], value[TEXT];
    snprintf(key, sizeof key, "error.%s", call);
    if (look_up(key, value) || (device && look_up_of(device, key, value))) return atoi(value);
    if (!num_starts && strcmp(call, "nvmlInitWithFlags")) return UNINITIALIZED;
    return SUCCESS;
}

static int number_of(const char *call, const Device *device, const char *name, unsigned long long *number) {
    char value[TEXT];
    int refused = refusal(call, device);
    if (refused) return refused;
    if (!look_up_of(device, name, value)) return NOT_SUPPORTED;
    *number = strtoull(value, NULL, 10);
    return SUCCESS;
}

static int text_of(const char *call, const Device *device, const char *name, char *text, unsigned int size) {
    char value[TEXT];
    int refused = refusal(call, device);
    if (refused) return refused;
    if (!look_up_of(device, name, value)) return NOT_SUPPORTED;
    if (strlen(value) >= size) return INSUFFICIENT_SIZE;
    strcpy(text, value);
    return SUCCESS;
}

/* For tests: starts that nobody has stopped. */
int stand_in_num_starts(void) { return num_starts; }

int nvmlInitWithFlags(unsigned int flags) {
    int refused = refusal(__func__, NULL);
    (void)flags;
    if (!refused) num_starts++;
    return refused;
}

int nvmlShutdown(void) {
    int refused = refusal(__func__, NULL);
    if (!refused) num_starts--;
    return refused;
}

const char *nvmlErrorString(int error) {
    (void)error;
    return "an error of the stand-in";
}

int nvmlDeviceGetCount_v2(unsigned int *count) {
    char value[TEXT];
    int refused = refusal(__func__, NULL);
    if (refused) return refused;
    *count = look_up("count", value) ? (unsigned int)atoi(value) : 0;
    return SUCCESS;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned int index, Device **handle) {
    unsigned int count;
    int refused = nvmlDeviceGetCount_v2(&count);
    if (refused) return refused;
    if (index >= count || index >= MAX_GPUS) return INVALID_ARGUMENT;
    gpus[index].index = (int)index;
    *handle = &gpus[index];
    return refusal(__func__, *handle);
}

int nvmlDeviceGetHandleByUUID(const char *uuid, Device **handle) {
    char value[TEXT];
    int refused = refusal(__func__, NULL);
    if (refused) return refused;
    for (int index = 0; index < MAX_GPUS; index++) {
        gpus[index].index = slices[index].index = index;
        slices[index].is_slice = 1;
        if (look_up_of(&gpus[index], "uuid", value) && !strcmp(value, uuid)) *handle = &gpus[index];
        else if (look_up_of(&slices[index], "uuid", value) && !strcmp(value, uuid)) *handle = &slices[index];
        else continue;
        return refusal(__func__, *handle);
    }
    return NOT_FOUND;
}

int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(Device *device, Device **whole) {
    if (!device->is_slice) return INVALID_ARGUMENT;
    gpus[device->index].index = device->index;
    *whole = &gpus[device->index];
    return refusal(__func__, device);
}

int nvmlDeviceGetMigMode(Device *device, unsigned int *current, unsigned int *pending) {
    unsigned long long mode;
    int refused = number_of(__func__, device, "mig_mode", &mode);
    *current = *pending = refused ? 0 : (unsigned int)mode;
    return refused;
}

int nvmlDeviceGetIndex(Device *device, unsigned int *index) {
    *index = (unsigned int)device->index;
    return refusal(__func__, device);
}

int nvmlDeviceGetName(Device *device, char *name, unsigned int size) {
    return text_of(__func__, device, "name", name, size);
}

int nvmlDeviceGetUUID(Device *device, char *uuid, unsigned int size) {
    return text_of(__func__, device, "uuid", uuid, size);
}

int nvmlDeviceGetCudaComputeCapability(Device *device, int *major, int *minor) {
    unsigned long long number = 0;
    int refused = number_of(__func__, device, "major", &number);
    *major = (int)number;
    if (!refused) refused = number_of(__func__, device, "minor", &number);
    *minor = (int)number;
    return refused;
}

typedef struct {
    unsigned long long total, free, used;
} Memory;

int nvmlDeviceGetMemoryInfo(Device *device, Memory *memory) {
    int refused = number_of(__func__, device, "total", &memory->total);
    if (!refused) refused = number_of(__func__, device, "free", &memory->free);
    if (!refused) refused = number_of(__func__, device, "used", &memory->used);
    return refused;
}

typedef struct {
    unsigned int gpu, memory;
} Utilization;

int nvmlDeviceGetUtilizationRates(Device *device, Utilization *utilization) {
    unsigned long long percent = 0;
    int refused = number_of(__func__, device, "utilisation", &percent);
    utilization->gpu = (unsigned int)percent;
    return refused;
}

int nvmlDeviceGetTotalEccErrors(Device *device, unsigned int type, unsigned int counter, unsigned long long *count) {
    if (type != 1 || counter != 0) return INVALID_ARGUMENT; /* uncorrected, since the driver was loaded */
    return number_of(__func__, device, "ecc", count);
}

int nvmlDeviceGetTemperature(Device *device, unsigned int sensor, unsigned int *celsius) {
    unsigned long long number = 0;
    int refused = sensor ? INVALID_ARGUMENT : number_of(__func__, device, "celsius", &number);
    *celsius = (unsigned int)number;
    return refused;
}

int nvmlDeviceGetCurrentClocksThrottleReasons(Device *device, unsigned long long *reasons) {
    return number_of(__func__, device, "reasons", reasons);
}

#ifndef OLD_DRIVER
typedef struct {
    unsigned int version, sensor;
    int celsius;
} Temperature;

int nvmlDeviceGetTemperatureV(Device *device, Temperature *temperature) {
    unsigned long long number = 0;
    int refused;
    if (temperature->version != (1u << 24 | sizeof *temperature)) return ARGUMENT_VERSION_MISMATCH;
    refused = temperature->sensor ? INVALID_ARGUMENT : number_of(__func__, device, "celsius", &number);
    temperature->celsius = (int)number;
    return refused;
}

int nvmlDeviceGetCurrentClocksEventReasons(Device *device, unsigned long long *reasons) {
    return number_of(__func__, device, "reasons", reasons);
}
#endif
