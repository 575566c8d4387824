// Runs kernels on arrays of a file and writes their outputs to another, on the CPU qemu-aarch64 emulates.
//
// Usage: driver CALLS OUTPUTS. CALLS holds calls one after the other, numbers as int64:
//   function, number of inputs, number of outputs, then for each tensor: bytes, and the bytes of an input.
// Each tensor ends as near as its alignment lets it before an unreadable page; what lies before and behind it must stay
// as it is, inputs included. OUTPUTS gets the bytes of all outputs.
#include <dlpack/dlpack.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <tvm/ffi/c_api.h>

enum { ALIGNMENT = 64, CANARY = 0xA5, PAGE = 4096, MAX_TENSORS = 16, MAX_DIMENSIONS = 8 };

typedef int (*Kernel)(void*, const TVMFFIAny*, int32_t, TVMFFIAny*);
extern const Kernel kernels[];

static void fail(const char* why) {
  fprintf(stderr, "%s\n", why);
  exit(1);
}

void TVMFFIErrorSetRaisedFromCStrParts(const char* kind, const char** parts, int32_t count) {
  fprintf(stderr, "%s: ", kind);
  for (int32_t i = 0; i < count; ++i) fputs(parts[i] ? parts[i] : "", stderr);
  fputc('\n', stderr);
}

// What TVM's runtime does, on one thread: memory, and the iterations of a parallel loop one after the other.
static void* allocate(int device, int device_id, uint64_t size, int code, int bits) {
  return aligned_alloc(ALIGNMENT, (size + ALIGNMENT) / ALIGNMENT * ALIGNMENT);
}

static int release(int device, int device_id, void* memory) {
  free(memory);
  return 0;
}

typedef struct {
  void* sync_handle;
  int32_t num_task;
} Group;

static int launch(int (*task)(int, Group*, void*), void* closure, int tasks) {
  int32_t sync[64] = {0};
  Group group = {sync, 2};
  for (int i = 0; i < group.num_task; ++i) {
    if (task(i, &group, closure)) return -1;
  }
  return 0;
}

extern __attribute__((weak)) void* __TVMBackendAllocWorkspace;
extern __attribute__((weak)) void* __TVMBackendFreeWorkspace;
extern __attribute__((weak)) void* __TVMBackendParallelLaunch;

typedef struct {
  uint8_t* memory;
  size_t size, start, bytes;
  uint8_t* before;
  DLTensor tensor;
  int64_t shape[MAX_DIMENSIONS];
} Guarded;

static int64_t number(FILE* file) {
  int64_t value;
  if (fread(&value, sizeof value, 1, file) != 1) fail("calls are cut off");
  return value;
}

static void read_tensor(FILE* file, Guarded* guarded, int is_input) {
  DLTensor* tensor = &guarded->tensor;
  memset(tensor, 0, sizeof *tensor);
  tensor->device.device_type = kDLCPU;
  tensor->dtype.code = number(file);
  tensor->dtype.bits = number(file);
  tensor->dtype.lanes = 1;
  tensor->ndim = number(file);
  tensor->shape = guarded->shape;
  guarded->bytes = tensor->dtype.bits / 8;
  for (int i = 0; i < tensor->ndim; ++i) guarded->bytes *= guarded->shape[i] = number(file);
  guarded->size = (guarded->bytes + 2 * ALIGNMENT + PAGE - 1) / PAGE * PAGE;
  guarded->memory = mmap(0, guarded->size + PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (guarded->memory == MAP_FAILED || mprotect(guarded->memory + guarded->size, PAGE, PROT_NONE)) fail("no memory");
  memset(guarded->memory, CANARY, guarded->size);
  guarded->start = (guarded->size - guarded->bytes) / ALIGNMENT * ALIGNMENT;
  tensor->data = guarded->memory + guarded->start;
  if (is_input && fread(tensor->data, 1, guarded->bytes, file) != guarded->bytes) fail("calls are cut off");
  guarded->before = malloc(guarded->size);
  memcpy(guarded->before, guarded->memory, guarded->size);
}

static void check_and_free(Guarded* guarded, int is_input) {
  size_t end = guarded->start + guarded->bytes;
  if (memcmp(guarded->memory, guarded->before, guarded->start)) fail("wrote before a tensor");
  if (memcmp(guarded->memory + end, guarded->before + end, guarded->size - end)) fail("wrote past a tensor");
  if (is_input && memcmp(guarded->memory, guarded->before, guarded->size)) fail("wrote to an input");
  munmap(guarded->memory, guarded->size + PAGE);
  free(guarded->before);
}

int main(int count, char** arguments) {
  if (count != 3) fail("usage: driver CALLS OUTPUTS");
  if (&__TVMBackendAllocWorkspace) __TVMBackendAllocWorkspace = allocate;
  if (&__TVMBackendFreeWorkspace) __TVMBackendFreeWorkspace = release;
  if (&__TVMBackendParallelLaunch) __TVMBackendParallelLaunch = launch;
  FILE* calls = fopen(arguments[1], "rb");
  FILE* outputs = fopen(arguments[2], "wb");
  if (!calls || !outputs) fail("cannot open the files");
  static Guarded tensors[MAX_TENSORS];
  for (int64_t left = number(calls); left > 0; --left) {
    int64_t function = number(calls), inputs = number(calls), all = inputs + number(calls);
    if (all > MAX_TENSORS) fail("too many tensors");
    TVMFFIAny values[MAX_TENSORS] = {0}, result = {0};
    for (int i = 0; i < all; ++i) {
      read_tensor(calls, &tensors[i], i < inputs);
      values[i].type_index = kTVMFFIDLTensorPtr;
      values[i].v_ptr = &tensors[i].tensor;
    }
    if (kernels[function](0, values, all, &result)) {
      fprintf(stderr, "kernel %ld failed\n", (long)function);
      return 1;
    }
    for (int i = (int)inputs; i < all; ++i) fwrite(tensors[i].tensor.data, 1, tensors[i].bytes, outputs);
    for (int i = 0; i < all; ++i) check_and_free(&tensors[i], i < inputs);
  }
  return fclose(outputs) != 0;
}
