/* aarch64: raw system calls (no errno, no TLS) and the registers that a crash record needs. */
#ifndef TC_ARCH_H
#define TC_ARCH_H

#include <stdint.h>
#include <ucontext.h>

static inline long tc_syscall6(long nr, long a, long b, long c, long d, long e, long f)
{
    register long x8 __asm__("x8") = nr;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    register long x5 __asm__("x5") = f;
    __asm__ volatile("svc #0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5) : "memory", "cc");
    return x0;
}

/* clone(2) has its last two arguments in another order on each machine. */
#define TC_CLONE_ORDER(parent, child, tls) (parent), (tls), (child)

static inline uintptr_t tc_context_pc(const void *context)
{
    return (uintptr_t)((const ucontext_t *)context)->uc_mcontext.pc;
}

static inline void *tc_thread_pointer(void)
{
    void *tp;
    __asm__ volatile("mrs %0, tpidr_el0" : "=r"(tp));
    return tp;
}

/* How far below the thread pointer libc's descriptor of the thread begins. */
static inline long tc_thread_descriptor(long size) { return size; }

/* No restorer: the kernel returns through the vDSO. */
#define TC_SA_RESTORER 0ul
#define tc_sigreturn ((void (*)(void))0)

#endif
