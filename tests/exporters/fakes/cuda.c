/* The calls of the CUDA driver that a bundle's script makes, on host memory: what is copied is copied, events have the
   wall clock, the device's compute capability is what FAKE_CAPABILITY says ("87" is 8.7). */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

int cuInit(unsigned flags) { return flags; }
int cuDeviceGetCount(int *count) { *count = getenv("FAKE_NO_GPU") ? 0 : 1; return 0; }
int cuDeviceGet(int *device, int index) { *device = index; return 0; }
int cuDevicePrimaryCtxRetain(void **context, int device) { *context = (void *)(intptr_t)(device + 1); return 0; }
int cuCtxSetCurrent(void *context) { return context == 0; }
int cuDeviceGetName(char *name, int size, int device) { (void)device; strncpy(name, "Fake Orin", size); return 0; }
int cuDriverGetVersion(int *version) { *version = 12060; return 0; }
int cuDeviceGetAttribute(int *value, int attribute, int device) {
    const char *text = getenv("FAKE_CAPABILITY");
    int both = text ? atoi(text) : 87;
    (void)device;
    *value = attribute == 75 ? both / 10 : both % 10;
    return attribute != 75 && attribute != 76;
}
int cuMemAlloc_v2(void **pointer, size_t size) { *pointer = malloc(size); return *pointer == 0; }
int cuMemFree_v2(void *pointer) { free(pointer); return 0; }
int cuMemAllocHost_v2(void **pointer, size_t size) { *pointer = malloc(size); return *pointer == 0; }
int cuMemFreeHost(void *pointer) { free(pointer); return 0; }
int cuMemcpyHtoDAsync_v2(void *to, const void *from, size_t size, void *stream) { memcpy(to, from, size); return stream == 0; }
int cuMemcpyDtoHAsync_v2(void *to, const void *from, size_t size, void *stream) { memcpy(to, from, size); return stream == 0; }
int cuMemGetInfo_v2(size_t *free, size_t *total) { *free = (size_t)4 << 30; *total = (size_t)8 << 30; return 0; }
int cuDeviceTotalMem_v2(size_t *size, int device) { (void)device; *size = (size_t)8 << 30; return 0; }
int cuEventDestroy_v2(void *event) { free(event); return 0; }
int cuStreamDestroy_v2(void *stream) { return stream == 0; }
int cuDevicePrimaryCtxRelease_v2(int device) { return device; }
int cuMemcpyHtoD_v2(void *to, const void *from, size_t size) { memcpy(to, from, size); return 0; }
int cuMemcpyDtoH_v2(void *to, const void *from, size_t size) { memcpy(to, from, size); return 0; }
int cuStreamCreate(void **stream, unsigned flags) { *stream = (void *)(intptr_t)(flags + 1); return 0; }
int cuStreamSynchronize(void *stream) { return stream == 0; }
int cuEventCreate(void **event, unsigned flags) { *event = calloc(1, sizeof(struct timespec)); return flags || *event == 0; }
int cuEventRecord(void *event, void *stream) { (void)stream; return clock_gettime(CLOCK_MONOTONIC, event); }
int cuEventSynchronize(void *event) { return event == 0; }
int cuEventElapsedTime(float *ms, void *begin, void *end) {
    struct timespec *a = begin, *b = end;
    *ms = (b->tv_sec - a->tv_sec) * 1e3f + (b->tv_nsec - a->tv_nsec) * 1e-6f;
    return 0;
}
