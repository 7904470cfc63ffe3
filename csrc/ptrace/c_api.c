/* c_api NAME: calls one well-known function of libc once, in a program in which nothing else makes a task.
 *
 * What it starts writes "body PID TID" to stdout; `c_api body` does nothing but that, for whoever needs a program to
 * start. `taskclone api` traces it (taskclone.tracer.apis). */
#include <err.h>
#include <errno.h>
#include <pthread.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

extern char **environ;

static const char *self;
static char *const program[] = {"c_api", "body", NULL};

/* By write: no buffer that a fork could double. 0 when it was written. */
static int body(void)
{
    char text[64];
    int size = snprintf(text, sizeof text, "body %d %d\n", (int)getpid(), (int)gettid());
    return write(1, text, (size_t)size) != size;
}

static void wait_for(pid_t pid, const char *what)
{
    int status;
    pid_t r;
    do r = waitpid(pid, &status, 0);
    while (r < 0 && errno == EINTR);
    if (r < 0) err(1, "waitpid");
    if (status) errx(1, "what %s started ended with wait status %#x", what, status);
}

static void by_fork(void)
{
    pid_t pid = fork();
    if (pid < 0) err(1, "fork");
    if (!pid) _exit(body());
    wait_for(pid, "fork");
}

static void by_vfork(void)
{
    pid_t pid = vfork();
    if (pid < 0) err(1, "vfork");
    if (!pid) _exit(body());
    wait_for(pid, "vfork");
}

static void by_posix_spawn(void)
{
    pid_t pid;
    int error = posix_spawn(&pid, self, NULL, NULL, program, environ);
    if (error) errno = error, err(1, "posix_spawn of %s", self);
    wait_for(pid, "posix_spawn");
}

/* The shell itself is what is started. */
static const char shell_command[] = "echo body $$ $$";

static void by_system(void)
{
    int status = system(shell_command);
    if (status < 0) err(1, "system");
    if (status) errx(1, "system: wait status %#x", status);
}

static void by_popen(void)
{
    char text[64];
    FILE *pipe = popen(shell_command, "r");
    if (!pipe) err(1, "popen");
    size_t size = fread(text, 1, sizeof text, pipe);
    if (pclose(pipe)) errx(1, "popen: the shell failed");
    if (write(1, text, size) != (ssize_t)size) err(1, "stdout");
}

static void *thread(void *unused)
{
    (void)unused;
    return body() ? program[0] : NULL;
}

static void by_pthread_create(void)
{
    pthread_t id;
    void *failed;
    int error = pthread_create(&id, NULL, thread, NULL);
    if (error) errno = error, err(1, "pthread_create");
    error = pthread_join(id, &failed);
    if (error) errno = error, err(1, "pthread_join");
    if (failed) errx(1, "the thread could not write to stdout");
}

static const struct {
    const char *name;
    void (*run)(void);
} calls[] = {
    {"fork", by_fork},     {"vfork", by_vfork}, {"posix_spawn", by_posix_spawn},
    {"system", by_system}, {"popen", by_popen}, {"pthread_create", by_pthread_create},
};

int main(int argc, char **argv)
{
    self = argv[0];
    const char *name = argc == 2 ? argv[1] : "";
    if (!strcmp(name, "body")) return body();
    for (unsigned i = 0; i < sizeof calls / sizeof *calls; i++)
        if (!strcmp(name, calls[i].name)) {
            calls[i].run();
            return 0;
        }
    errx(2, "usage: c_api fork|vfork|posix_spawn|system|popen|pthread_create|body");
}
