/* Follow a process's system calls on some files, and at one of them kill it,
 * have the call fail, or have it write less than it was asked to.
 *
 * strace counts calls by thread, can't shorten a write and starts a program anew
 * for each point; this follows a process that was forked with everything imported
 * already, and counts by call and file. Linux on x86-64. */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/ptrace.h>

#if !defined(__x86_64__)
#error "registers are those of x86-64"
#endif

enum action { ONLY_LOG, KILL_BEFORE, KILL_AFTER, FAIL, SHORT };

/* The same in syscalls.py. */
struct plan {
    const char *folder;  /* files below it are told by their path in it */
    const char *segment; /* told as "segment" */
    const char *bell;    /* told as "doorbell" */
    int action;
    const char *call; /* at this call ... */
    const char *path; /* ... on this file ... */
    long occurrence;  /* ... for the n-th time, from 1 */
    long times;       /* and so often: each of these is counted */
    int error;
    long bytes;          /* SHORT: written at most */
    int sticky;          /* from there on every call that changes the folder */
    volatile int healed; /* set by another thread: no more errors */
    int log_fd;
    int go_fd; /* written to when the process may go on */
    long hits; /* out: how often the plan struck */
};

enum where { PATH0, AT0, FD0, FD4 };

struct call {
    long number;
    const char *name;
    enum where where;
    bool changes; /* the folder or a file in it */
};

static const struct call CALLS[] = {
    {SYS_openat, "openat", AT0, false},
    {SYS_open, "open", PATH0, false},
    {SYS_write, "write", FD0, true},
    {SYS_pwrite64, "pwrite64", FD0, true},
    {SYS_writev, "writev", FD0, true},
    {SYS_fsync, "fsync", FD0, true},
    {SYS_fdatasync, "fdatasync", FD0, true},
    {SYS_rename, "rename", PATH0, true},
    {SYS_renameat, "renameat", AT0, true},
    {SYS_renameat2, "renameat2", AT0, true},
    {SYS_unlink, "unlink", PATH0, true},
    {SYS_unlinkat, "unlinkat", AT0, true},
    {SYS_rmdir, "rmdir", PATH0, true},
    {SYS_mkdir, "mkdir", PATH0, true},
    {SYS_mkdirat, "mkdirat", AT0, true},
    {SYS_link, "link", PATH0, true},
    {SYS_linkat, "linkat", AT0, true},
    {SYS_ftruncate, "ftruncate", FD0, true},
    {SYS_truncate, "truncate", PATH0, true},
    {SYS_fallocate, "fallocate", FD0, true},
    {SYS_close, "close", FD0, false},
    {SYS_mmap, "mmap", FD4, false},
    {SYS_fcntl, "fcntl", FD0, false},
    {SYS_flock, "flock", FD0, false},
};

struct thread {
    pid_t tid;
    const struct call *call; /* one of ours, entered */
    enum { NOTHING, SET_ERROR, RESTORE, KILL } at_exit;
    struct user_regs_struct entered;
    char path[PATH_MAX];
    long occurrence;
};

struct counter {
    const struct call *call;
    char path[256];
    long count;
};

enum { THREADS = 256, COUNTERS = 4096 };

struct trace {
    struct plan *plan;
    pid_t pid;
    struct thread threads[THREADS];
    struct counter counters[COUNTERS];
    int counters_used;
};

static const struct call *find_call(long number)
{
    for (size_t i = 0; i < sizeof CALLS / sizeof *CALLS; i++) {
        if (CALLS[i].number == number) {
            return &CALLS[i];
        }
    }
    return NULL;
}

static struct thread *find_thread(struct trace *trace, pid_t tid)
{
    struct thread *unused = NULL;
    for (int i = 0; i < THREADS; i++) {
        if (trace->threads[i].tid == tid) {
            return &trace->threads[i];
        }
        if (!unused && trace->threads[i].tid == 0) {
            unused = &trace->threads[i];
        }
    }
    if (unused) {
        memset(unused, 0, sizeof *unused);
        unused->tid = tid;
    }
    return unused;
}

/* ---- the file of a call ---- */

static bool read_text(pid_t tid, uint64_t address, char *text, size_t room)
{
    size_t done = 0;
    while (done + 1 < room) {
        size_t piece = 4096 - (address + done) % 4096; /* the next page may not be there */
        piece = piece < room - 1 - done ? piece : room - 1 - done;
        struct iovec local = {text + done, piece}, remote = {(void *)(address + done), piece};
        ssize_t got = process_vm_readv(tid, &local, 1, &remote, 1, 0);
        if (got <= 0) {
            return false;
        }
        if (memchr(text + done, 0, (size_t)got)) {
            return true;
        }
        done += (size_t)got;
    }
    return false;
}

static bool path_of_link(pid_t tid, const char *link, char *path)
{
    char name[64];
    snprintf(name, sizeof name, "/proc/%d/%s", tid, link);
    ssize_t length = readlink(name, path, PATH_MAX - 1);
    if (length < 0) {
        return false;
    }
    path[length] = 0;
    static const char GONE[] = " (deleted)";
    size_t tail = sizeof GONE - 1;
    if ((size_t)length > tail && strcmp(path + length - tail, GONE) == 0) {
        path[(size_t)length - tail] = 0;
    }
    return true;
}

static bool path_of_fd(pid_t tid, int fd, char *path)
{
    char link[32];
    snprintf(link, sizeof link, "fd/%d", fd);
    return path_of_link(tid, fd == AT_FDCWD ? "cwd" : link, path);
}

static bool path_at(pid_t tid, int folder, uint64_t address, char *path)
{
    static char name[PATH_MAX];
    if (!read_text(tid, address, name, sizeof name)) {
        return false;
    }
    if (name[0] == '/') {
        strcpy(path, name);
        return true;
    }
    if (!path_of_fd(tid, folder, path) || strlen(path) + strlen(name) + 2 > PATH_MAX) {
        return false;
    }
    strcat(path, "/");
    strcat(path, name);
    return true;
}

static bool path_of_call(pid_t tid, const struct call *call, const struct user_regs_struct *regs, char *path)
{
    switch (call->where) {
    case PATH0:
        return path_at(tid, AT_FDCWD, regs->rdi, path);
    case AT0:
        return path_at(tid, (int)regs->rdi, regs->rsi, path);
    case FD0:
        return path_of_fd(tid, (int)regs->rdi, path);
    case FD4:
        return (int)regs->r8 >= 0 && path_of_fd(tid, (int)regs->r8, path);
    }
    return false;
}

/* What the file is called in logs and plans, or NULL if it is none of ours. */
static const char *label(const struct plan *plan, const char *path)
{
    size_t length = strlen(plan->folder);
    if (strncmp(path, plan->folder, length) == 0 && (path[length] == '/' || path[length] == 0)) {
        return path[length] ? path + length + 1 : ".";
    }
    if (plan->segment && strcmp(path, plan->segment) == 0) {
        return "segment";
    }
    return plan->bell && strcmp(path, plan->bell) == 0 ? "doorbell" : NULL;
}

/* ---- counting and deciding ---- */

static long count(struct trace *trace, const struct call *call, const char *path)
{
    for (int i = 0; i < trace->counters_used; i++) {
        if (trace->counters[i].call == call && strcmp(trace->counters[i].path, path) == 0) {
            return ++trace->counters[i].count;
        }
    }
    if (trace->counters_used < COUNTERS) {
        struct counter *counter = &trace->counters[trace->counters_used++];
        counter->call = call;
        snprintf(counter->path, sizeof counter->path, "%.255s", path);
        counter->count = 1;
    }
    return 1;
}

static bool changes(const struct call *call, const struct user_regs_struct *regs)
{
    if (call->number == SYS_openat) {
        return (regs->rdx & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC)) != 0;
    }
    if (call->number == SYS_open) {
        return (regs->rsi & (O_WRONLY | O_RDWR | O_CREAT | O_TRUNC)) != 0;
    }
    return call->changes;
}

static bool is_on_disk(const char *name) { return strcmp(name, "segment") != 0 && strcmp(name, "doorbell") != 0; }

static bool strikes(struct plan *plan, const struct thread *thread, const char *name)
{
    if (plan->action == ONLY_LOG || plan->healed) {
        return false;
    }
    bool exact = strcmp(plan->call, thread->call->name) == 0 && strcmp(plan->path, name) == 0;
    if (plan->sticky && plan->hits > 0) {
        return is_on_disk(name) && changes(thread->call, &thread->entered);
    }
    return exact && thread->occurrence >= plan->occurrence && plan->hits < plan->times;
}

/* Have a write or writev write the first bytes only. */
static void shorten(struct thread *thread, struct user_regs_struct *regs, long bytes)
{
    if (thread->call->number == SYS_writev) {
        struct iovec piece = {NULL, 0};
        for (uint64_t i = 0; i < regs->rdx && piece.iov_len == 0; i++) {
            struct iovec local = {&piece, sizeof piece}, remote = {(void *)(regs->rsi + i * sizeof piece), sizeof piece};
            if (process_vm_readv(thread->tid, &local, 1, &remote, 1, 0) < 0) {
                return;
            }
        }
        regs->orig_rax = SYS_write;
        regs->rsi = (uint64_t)piece.iov_base;
        regs->rdx = piece.iov_len;
    }
    if (regs->rdx > (uint64_t)bytes) {
        regs->rdx = (uint64_t)bytes;
    }
}

static void enter(struct trace *trace, struct thread *thread)
{
    struct plan *plan = trace->plan;
    struct user_regs_struct regs;
    thread->call = NULL;
    thread->at_exit = NOTHING;
    if (ptrace(PTRACE_GETREGS, thread->tid, 0, &regs) < 0) {
        return;
    }
    const struct call *call = find_call((long)regs.orig_rax);
    if (!call || !path_of_call(thread->tid, call, &regs, thread->path)) {
        return;
    }
    const char *name = label(plan, thread->path);
    if (!name) {
        return;
    }
    memmove(thread->path, name, strlen(name) + 1);
    thread->call = call;
    thread->entered = regs;
    thread->occurrence = count(trace, call, thread->path);
    if (!strikes(plan, thread, thread->path)) {
        return;
    }
    plan->hits++;
    switch ((enum action)plan->action) {
    case KILL_BEFORE:
        kill(trace->pid, SIGKILL);
        break;
    case KILL_AFTER:
        thread->at_exit = KILL;
        break;
    case FAIL:
        regs.orig_rax = (unsigned long long)-1;
        thread->at_exit = SET_ERROR;
        ptrace(PTRACE_SETREGS, thread->tid, 0, &regs);
        break;
    case SHORT:
        shorten(thread, &regs, plan->bytes);
        thread->at_exit = RESTORE;
        ptrace(PTRACE_SETREGS, thread->tid, 0, &regs);
        break;
    case ONLY_LOG:
        break;
    }
}

static void leave(struct trace *trace, struct thread *thread)
{
    struct plan *plan = trace->plan;
    struct user_regs_struct regs;
    if (!thread->call) {
        return;
    }
    if (ptrace(PTRACE_GETREGS, thread->tid, 0, &regs) < 0) {
        return;
    }
    if (thread->at_exit == KILL) {
        kill(trace->pid, SIGKILL);
    } else if (thread->at_exit != NOTHING) {
        /* The caller relies on its argument registers. */
        long long result = thread->at_exit == SET_ERROR ? -plan->error : (long long)regs.rax;
        regs = thread->entered;
        regs.rax = (unsigned long long)result;
        ptrace(PTRACE_SETREGS, thread->tid, 0, &regs);
    }
    if (plan->log_fd >= 0) {
        dprintf(plan->log_fd, "%s\t%s\t%ld\t%d\t%lld\t%d\n", thread->call->name, thread->path, thread->occurrence,
                changes(thread->call, &thread->entered), (long long)regs.rax, thread->tid == trace->pid);
    }
    thread->call = NULL;
}

/* ---- following ---- */

static void go_on(struct trace *trace, pid_t tid, int status)
{
    int event = status >> 16, stop = WSTOPSIG(status);
    long deliver = 0;
    struct thread *thread = find_thread(trace, tid);
    if (thread && stop == (SIGTRAP | 0x80)) {
        struct ptrace_syscall_info info;
        if (ptrace(PTRACE_GET_SYSCALL_INFO, tid, sizeof info, &info) > 0) {
            if (info.op == PTRACE_SYSCALL_INFO_ENTRY) {
                enter(trace, thread);
            } else if (info.op == PTRACE_SYSCALL_INFO_EXIT) {
                leave(trace, thread);
            }
        }
    } else if (!event) {
        deliver = stop;
    }
    ptrace(PTRACE_SYSCALL, tid, 0, deliver);
}

/* Follow `pid`, which waits for a byte, to its end. Returns its wait status, or -errno. */
int sysfault_follow(pid_t pid, struct plan *plan)
{
    struct trace *trace = calloc(1, sizeof *trace);
    int status, result = -ENOMEM;
    if (!trace) {
        return result;
    }
    trace->plan = plan;
    trace->pid = pid;
    plan->hits = 0;
    long options = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE | PTRACE_O_EXITKILL;
    if (ptrace(PTRACE_SEIZE, pid, 0, options) < 0 || ptrace(PTRACE_INTERRUPT, pid, 0, 0) < 0 ||
        write(plan->go_fd, "g", 1) != 1) {
        result = -errno;
        free(trace);
        return result;
    }
    for (;;) {
        pid_t tid = waitpid(-1, &status, __WALL | __WNOTHREAD);
        if (tid < 0) {
            result = -errno;
            break;
        }
        if (!WIFSTOPPED(status)) {
            struct thread *thread = find_thread(trace, tid);
            if (thread) {
                thread->tid = 0;
            }
            if (tid == pid) {
                result = status;
                break;
            }
            continue;
        }
        go_on(trace, tid, status);
    }
    free(trace);
    return result;
}
