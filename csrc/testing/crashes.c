/* Ways to die and to be stuck, for ctypes: loaded with CDLL they run without the interpreter lock, with PyDLL with it.
 */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static __attribute__((noinline)) int deeper(volatile char *above, int depth)
{
    volatile char here[4096];
    here[0] = above ? above[0] : 1;
    here[sizeof here - 1] = (char)depth;
    return deeper(here, depth + 1) + here[0] + here[sizeof here - 1];
}

int overflow_stack(void) { return deeper(NULL, 0); }

void write_to(long address) { *(volatile int *)address = 1; }

/* On aarch64 this is 0 and no signal, so one is raised. */
int divide(volatile int a, volatile int b)
{
#if defined(__x86_64__)
    return a / b;
#else
    (void)a, (void)b;
    return raise(SIGFPE);
#endif
}

void not_an_instruction(void)
{
#if defined(__x86_64__)
    __asm__ volatile("ud2");
#else
    __asm__ volatile(".inst 0");
#endif
}

void raise_signal(int number) { raise(number); }

void spin_for_ever(void)
{
    for (;;) __asm__ volatile("" ::: "memory");
}

/* Says its pid, so that a stranger knows that the task is in C. */
static void tell(int fd)
{
    char line[20];
    int length = snprintf(line, sizeof line, "%d\n", (int)getpid());
    if (write(fd, line, (size_t)length) != length) abort();
}

void tell_and_spin(int fd)
{
    tell(fd);
    spin_for_ever();
}

void tell_and_read(int fd, int gate)
{
    char byte;
    tell(fd);
    if (read(gate, &byte, 1) != 1) abort();
}

/* glibc notices the broken size of the block behind and aborts, with the arena's lock held. */
void corrupt_heap(void)
{
    char *blocks[64];
    for (int i = 0; i < 64; i++) blocks[i] = malloc(2000);
    for (int i = 0; i < 63; i++) memset(blocks[i], 0xff, 2000 + 16);
    for (int i = 0; i < 64; i++) free(blocks[i]);
    for (int i = 0; i < 64; i++) blocks[i] = malloc(100000 + 64 * i);
}

volatile unsigned long churned;

/* Lives in malloc until it is killed there; who sees `churned` grow knows that it does. */
void churn(void)
{
    void *blocks[64] = {0};
    unsigned seed = (unsigned)getpid();
    for (;;) {
        seed = seed * 1103515245u + 12345;
        int i = (seed >> 16) & 63;
        free(blocks[i]);
        blocks[i] = malloc(1200 + (seed >> 12) % 40000);
        churned++;
    }
}

static void *linger(void *seconds)
{
    sleep((unsigned)(long)seconds);
    return NULL;
}

/* What a library does that starts a thread of its own at its first call. 0, or an errno. */
int start_thread(long seconds)
{
    pthread_t thread;
    int err = pthread_create(&thread, NULL, linger, (void *)seconds);
    return err ? err : pthread_detach(thread);
}
