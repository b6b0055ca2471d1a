/* Runs another process instruction by instruction, and stops or kills it at any of them.
 *
 * The process marks the window that is looked at by sending itself SIGSTOP
 * before and after it. The same thread must call all of these. */
#include <elf.h>
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/personality.h>
#include <sys/ptrace.h>
#include <sys/uio.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <unistd.h>

#if defined(__x86_64__)
#define COUNTER rip
#define TRAP UINT64_C(0xcc)
#define TRAP_BITS 8
/* The two bytes of `syscall`. */
static int is_syscall(uint64_t code) { return (code & 0xffff) == 0x050f; }
#elif defined(__aarch64__)
#define COUNTER pc
#define TRAP UINT64_C(0xd4200000)
#define TRAP_BITS 32
static int is_syscall(uint64_t code) { return (code & 0xffe0001f) == 0xd4000001; }
#else
#error "single steps are known for x86-64 and aarch64"
#endif

/* How a process stopped. */
enum { ENDED = 0, STEPPED = 1, MARKED = 2, FORKED = 3, FAILED = -1 };

struct region {
    const unsigned char *live;
    unsigned char *shadow;
    size_t bytes;
};

static int wait_for(pid_t pid, int *status)
{
    while (waitpid(pid, status, __WALL) < 0) {
        if (errno != EINTR) {
            return FAILED;
        }
    }
    if (!WIFSTOPPED(*status)) {
        return ENDED;
    }
    if (*status >> 8 == (SIGTRAP | PTRACE_EVENT_FORK << 8)) {
        return FORKED;
    }
    return WSTOPSIG(*status) == SIGSTOP ? MARKED : STEPPED;
}

static int go_on(pid_t pid, int request, int *status)
{
    int signal = 0;
    for (;;) {
        if (ptrace((enum __ptrace_request)request, pid, NULL, (void *)(intptr_t)signal) != 0) {
            return FAILED;
        }
        int stop = wait_for(pid, status);
        if (stop != STEPPED || WSTOPSIG(*status) == SIGTRAP) {
            return stop;
        }
        signal = WSTOPSIG(*status); /* one of its own: it gets it */
    }
}

static int go(pid_t pid, int request)
{
    int status;
    return go_on(pid, request, &status);
}

/* In the process itself, before its first mark: be traced by the parent. */
int stepper_offer(void) { return (int)ptrace(PTRACE_TRACEME, 0, NULL, NULL); }

/* Wait for the first stop of a process that has offered itself. */
int stepper_take(pid_t pid)
{
    int status;
    int stop = wait_for(pid, &status);
    long options = PTRACE_O_EXITKILL | PTRACE_O_TRACEFORK;
    return stop > ENDED && ptrace(PTRACE_SETOPTIONS, pid, NULL, (void *)options) == 0 ? stop : FAILED;
}

/* Whether programs can be started at the same addresses each time; some containers forbid it. */
int stepper_fixes_addresses(void)
{
    int before = personality(0xffffffff);
    int done = personality((unsigned long)before | ADDR_NO_RANDOMIZE);
    personality((unsigned long)before);
    return done >= 0;
}

/* Start a program, stopped before its first instruction, at the same addresses each time. */
pid_t stepper_spawn(char *const argv[])
{
    pid_t pid = vfork();
    if (pid == 0) {
        personality(ADDR_NO_RANDOMIZE);
        stepper_offer();
        execv(argv[0], argv);
        _exit(127);
    }
    return pid > 0 && stepper_take(pid) == STEPPED ? pid : -1;
}

/* Let it run to its next mark, fork or end. */
int stepper_resume(pid_t pid) { return go(pid, PTRACE_CONT); }

/* The child of a process that has FORKED, stopped before its first instruction. */
pid_t stepper_child(pid_t pid)
{
    unsigned long child = 0;
    int status;
    ptrace(PTRACE_GETEVENTMSG, pid, NULL, &child);
    return wait_for((pid_t)child, &status) > ENDED ? (pid_t)child : -1;
}

/* Execute up to `count` instructions. `stop` says how the last one ended. Returns their number. */
long stepper_step(pid_t pid, long count, int *stop)
{
    *stop = STEPPED;
    for (long done = 0; done < count; done++) {
        *stop = go(pid, PTRACE_SINGLESTEP);
        if (*stop != STEPPED) {
            return done;
        }
    }
    return count;
}

static int registers(pid_t pid, int request, struct user_regs_struct *all)
{
    struct iovec piece = {all, sizeof *all};
    return (int)ptrace((enum __ptrace_request)request, pid, (void *)(intptr_t)NT_PRSTATUS, &piece);
}

/* The address of its next instruction. */
uint64_t stepper_where(pid_t pid)
{
    struct user_regs_struct all;
    return registers(pid, PTRACE_GETREGSET, &all) == 0 ? all.COUNTER : 0;
}

/* Let it run until the instruction at `address` is next, or to its mark. */
int stepper_run_to(pid_t pid, uint64_t address)
{
    struct user_regs_struct all;
    uint64_t code = (uint64_t)ptrace(PTRACE_PEEKTEXT, pid, (void *)address, NULL);
    uint64_t trap = (code >> TRAP_BITS << TRAP_BITS) | TRAP;
    if (ptrace(PTRACE_POKETEXT, pid, (void *)address, (void *)trap) != 0) {
        return FAILED;
    }
    int stop = go(pid, PTRACE_CONT);
    if (ptrace(PTRACE_POKETEXT, pid, (void *)address, (void *)code) != 0 ||
        registers(pid, PTRACE_GETREGSET, &all) != 0) {
        return FAILED;
    }
    if (stop == STEPPED) {
        all.COUNTER = address; /* behind the trap on x86-64 */
    }
    return registers(pid, PTRACE_SETREGSET, &all) == 0 ? stop : FAILED;
}

/* Kill it where it is, and wait until the kernel has released what it held. */
int stepper_kill(pid_t pid)
{
    int status;
    kill(pid, SIGKILL);
    while (wait_for(pid, &status) > ENDED) {
    }
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL ? 0 : -1;
}

/* Step to the mark, and tell the address of each instruction, with the highest
 * bit set for a system call. A child is killed. Returns their number. */
long stepper_trace(pid_t pid, uint64_t *addresses, long room)
{
    for (long done = 0; done < room; done++) {
        uint64_t at = stepper_where(pid);
        uint64_t code = (uint64_t)ptrace(PTRACE_PEEKTEXT, pid, (void *)at, NULL);
        addresses[done] = at | (is_syscall(code) ? UINT64_C(1) << 63 : 0);
        int stop = go(pid, PTRACE_SINGLESTEP);
        if (stop == FORKED) {
            stepper_kill(stepper_child(pid));
            stop = go(pid, PTRACE_SINGLESTEP);
        }
        if (stop != STEPPED) {
            return stop == MARKED ? done + 1 : FAILED;
        }
    }
    return FAILED;
}

static int renew(const struct region *regions, int count)
{
    int changed = 0;
    for (int i = 0; i < count; i++) {
        if (memcmp(regions[i].live, regions[i].shadow, regions[i].bytes) != 0) {
            memcpy(regions[i].shadow, regions[i].live, regions[i].bytes);
            changed = 1;
        }
    }
    return changed;
}

/* Step to the mark, and after each instruction that changed one of the regions
 * tell its number. The shadows hold the regions as they are then: what a kill
 * at this point leaves. Returns the number of instructions. */
long stepper_sweep(pid_t pid, const struct region *regions, int count, void (*changed)(long))
{
    for (long done = 0;; done++) {
        int stop = go(pid, PTRACE_SINGLESTEP);
        if (renew(regions, count)) {
            changed(done + 1);
        }
        if (stop != STEPPED) {
            return stop == MARKED ? done + 1 : FAILED;
        }
    }
}

/* Let it run to its end. Returns its exit status, or FAILED. */
int stepper_finish(pid_t pid)
{
    int status;
    return go_on(pid, PTRACE_CONT, &status) == ENDED && WIFEXITED(status) ? WEXITSTATUS(status) : FAILED;
}

/* Let it run on without us. */
int stepper_release(pid_t pid) { return (int)ptrace(PTRACE_DETACH, pid, NULL, NULL); }
