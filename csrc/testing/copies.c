/* What libc believes in a copy of a process, for ctypes: its handlers around a fork, its idea of the thread's id. */
#include <errno.h>
#include <pthread.h>
#include <sys/mman.h>
#include <time.h>

static int before, parent, child;

static void count_before(void) { before++; }
static void count_parent(void) { parent++; }
static void count_child(void) { child++; }

/* 0 or an errno; from now on forks are counted. */
int watch_forks(void) { return pthread_atfork(count_before, count_parent, count_child); }

/* Calls before a fork, after it in the parent, after it in the child, as three decimal digits. */
int forks_seen(void) { return before * 100 + parent * 10 + child; }

/* Whom a mutex that keeps its owner's id names, when the caller has it. */
int owner_of_a_lock(void)
{
    pthread_mutexattr_t attributes;
    pthread_mutex_t mutex;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_settype(&attributes, PTHREAD_MUTEX_ERRORCHECK);
    pthread_mutex_init(&mutex, &attributes);
    pthread_mutex_lock(&mutex);
    int owner = mutex.__data.__owner;
    pthread_mutex_unlock(&mutex);
    return owner;
}

/* A robust mutex that copies share, or NULL. */
pthread_mutex_t *new_robust_lock(void)
{
    pthread_mutexattr_t attributes;
    pthread_mutex_t *mutex = mmap(NULL, sizeof *mutex, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (mutex == MAP_FAILED) return NULL;
    pthread_mutexattr_init(&attributes);
    pthread_mutexattr_setpshared(&attributes, PTHREAD_PROCESS_SHARED);
    pthread_mutexattr_setrobust(&attributes, PTHREAD_MUTEX_ROBUST);
    pthread_mutex_init(mutex, &attributes);
    return mutex;
}

/* Tries for five seconds; 0, EOWNERDEAD (it died with it) or another errno. */
int lock(pthread_mutex_t *mutex)
{
    struct timespec deadline;
    clock_gettime(CLOCK_REALTIME, &deadline);
    deadline.tv_sec += 5;
    return pthread_mutex_timedlock(mutex, &deadline);
}
