/* x86-64: raw system calls (no errno, no TLS) and the registers that a crash record needs. */
#ifndef TC_ARCH_H
#define TC_ARCH_H

#include <stdint.h>
#include <ucontext.h>

static inline long tc_syscall6(long nr, long a, long b, long c, long d, long e, long f)
{
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    long ret;
    __asm__ volatile("syscall"
                     : "=a"(ret)
                     : "0"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return ret;
}

/* clone(2) has its last two arguments in another order on each machine. */
#define TC_CLONE_ORDER(parent, child, tls) (parent), (child), (tls)

static inline uintptr_t tc_context_pc(const void *context)
{
    return (uintptr_t)((const ucontext_t *)context)->uc_mcontext.gregs[REG_RIP];
}

static inline void *tc_thread_pointer(void)
{
    void *tp;
    __asm__ volatile("mov %%fs:0, %0" : "=r"(tp));
    return tp;
}

/* How far below the thread pointer libc's descriptor of the thread begins. */
static inline long tc_thread_descriptor(long size) { return (void)size, 0; }

/* The kernel's sigaction takes a restorer here, and insists on it. */
#define TC_SA_RESTORER 0x04000000ul
void tc_sigreturn(void);

#endif
