// A plugin of qemu that counts the instructions of the emulated program, all its threads together.
//
// At every getsid system call, which programs make for no other reason, it writes the count so far to the file of its
// argument out=FILE. Declarations as in qemu's include/qemu/qemu-plugin.h, version 1 of the interface.
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

enum { GETSID = 156 };  // on aarch64

struct qemu_plugin_tb;
void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t id, void (*callback)(uint64_t, struct qemu_plugin_tb*));
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb* block);
void qemu_plugin_register_vcpu_tb_exec_inline(struct qemu_plugin_tb* block, int operation, void* target, uint64_t value);
void qemu_plugin_register_vcpu_syscall_cb(uint64_t id, void (*callback)(uint64_t, unsigned, int64_t, uint64_t, uint64_t,
                                                                        uint64_t, uint64_t, uint64_t, uint64_t,
                                                                        uint64_t, uint64_t));

__attribute__((visibility("default"))) int qemu_plugin_version = 1;

static uint64_t count;
static FILE* out;

static void translated(uint64_t id, struct qemu_plugin_tb* block) {
  enum { ADD = 0 };
  qemu_plugin_register_vcpu_tb_exec_inline(block, ADD, &count, qemu_plugin_tb_n_insns(block));
}

static void called(uint64_t id, unsigned cpu, int64_t number, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e,
                   uint64_t f, uint64_t g, uint64_t h) {
  if (number != GETSID) return;
  fprintf(out, "%llu\n", (unsigned long long)count);
  fflush(out);
}

__attribute__((visibility("default"))) int qemu_plugin_install(uint64_t id, const void* info, int arguments,
                                                               char** values) {
  if (arguments != 1 || strncmp(values[0], "out=", 4)) return -1;
  out = fopen(values[0] + 4, "w");
  if (!out) return -1;
  qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
  qemu_plugin_register_vcpu_syscall_cb(id, called);
  return 0;
}
