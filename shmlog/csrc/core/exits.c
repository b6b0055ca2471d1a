#include "exits.h"

#include "clock.h"
#include "lock.h"

#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static void add(_Atomic uint32_t *word, uint32_t status, bool by_maker)
{
    /* relaxed: the exchange does it again. */
    uint32_t old = atomic_load_explicit(word, memory_order_relaxed), merged;
    do {
        merged = shmlog_finish_merge(old, status, by_maker);
        /* relaxed: what is said of it next publishes it, a request or `exiting`. */
    } while (!atomic_compare_exchange_weak_explicit(word, &old, merged, memory_order_relaxed, memory_order_relaxed));
}

void shmlog_finish_add(shmlog_header *header, uint32_t status, bool by_maker)
{
    add(&header->finish_status, status, by_maker);
}

uint32_t shmlog_finish_status(const shmlog_header *header)
{
    /* CONTROL, acquire side: of an owner that is at its exit no more, the status is seen below. */
    bool is_one_exiting = atomic_load_explicit(&header->exiting, memory_order_acquire) != 0;
    /* CONTROL */
    uint32_t known = atomic_load_explicit(&header->finish_status, memory_order_acquire);
    /* CONTROL */
    uint32_t likely = atomic_load_explicit(&header->likely_status, memory_order_acquire);
    return is_one_exiting ? shmlog_finish_merge(known, likely & (SHMLOG_BY_MAKER - 1), (likely & SHMLOG_BY_MAKER) != 0)
                          : known;
}

#if defined(__GLIBC__) /* others have no on_exit(3) */

#define ANSWER_NS (INT64_C(1000) * 1000 * 1000) /* for a status that nobody expected to be written */
#define ANSWER_NAP_NS (INT64_C(1000) * 1000)
#define CLOSING_NS (30 * ANSWER_NS) /* for a run to be closed: its parts are merged */
#define ALONE_NS (3 * ANSWER_NS) /* for a flusher to come up that closes it */
#define CLOSING_NAP_NS (10 * ANSWER_NAP_NS)

/* A run whose status the end of this process decides. Independent of Python's objects, which are gone by then. */
typedef struct awaited {
    shmlog_header *header; /* a mapping of its own */
    shmlog_description lock; /* holds the member lock */
    bool by_maker;
    uint32_t request; /* to have another status written than was likely; 0: none */
    struct awaited *next;
    char wal[]; /* empty: nobody waits for it */
} awaited;

static awaited *runs;
static pid_t process;

static uint32_t status_of(int code)
{
    int seen = code & 0377; /* what the parent gets to see of it */
    if (seen == 128 + SIGINT || seen == 128 + SIGTERM) {
        return SHMLOG_CANCELLED;
    }
    return seen ? SHMLOG_FAILED : SHMLOG_SUCCESS;
}

static bool may_wait(int64_t deadline_ns, int64_t nap_ns)
{
    struct timespec nap = {0, nap_ns};
    nanosleep(&nap, NULL);
    return shmlog_clock_ns(CLOCK_MONOTONIC) < deadline_ns;
}

/* Say how this process has ended. If that is not what the flusher expects, it is asked to write it. */
static void decide(awaited *run, uint32_t status)
{
    shmlog_header *header = run->header;
    uint32_t expected = shmlog_finish_status(header);
    add(&header->finish_status, status, run->by_maker);
    /* CONTROL, release side: the status comes before. */
    atomic_fetch_sub_explicit(&header->exiting, 1, memory_order_acq_rel);
    /* CONTROL */
    uint32_t asked = atomic_load_explicit(&header->finish_request, memory_order_acquire);
    /* CONTROL. One that has not answered yet may be too slow; it writes the status when it closes the run. */
    bool has_answered = atomic_load_explicit(&header->finish_done, memory_order_acquire) == asked;
    if (shmlog_finish_status(header) != expected && has_answered) {
        /* CONTROL, release side: as above. */
        run->request = 1 + atomic_fetch_add_explicit(&header->finish_request, 1, memory_order_acq_rel);
    }
}

/* How somebody else holds a lock, as shmlog_lock_probe(); -1 also if the program has closed our descriptor. */
static int probe(const awaited *run, int byte)
{
    return shmlog_description_is_there(&run->lock) ? shmlog_lock_probe(run->lock.fd, byte) : -1;
}

static void wait_for_answer(const awaited *run, int64_t deadline_ns)
{
    /* CONTROL, acquire side. */
    while (atomic_load_explicit(&run->header->finish_done, memory_order_acquire) < run->request &&
           probe(run, SHMLOG_LOCK_FLUSHER) != SHMLOG_LOCK_FREE && may_wait(deadline_ns, ANSWER_NAP_NS)) {
    }
}

static void give_up_membership(awaited *run)
{
    if (shmlog_description_is_there(&run->lock)) {
        shmlog_lock_drop(run->lock.fd, SHMLOG_LOCK_MEMBER);
    } else {
        shmlog_description_close(&run->lock);
    }
}

/* Wait until the flusher has closed the run, which begins when its last owner has left. */
static void see_off(awaited *run, int64_t deadline_ns)
{
    int64_t alone_ns = shmlog_clock_ns(CLOCK_MONOTONIC) + ALONE_NS;
    bool had_flusher = false;
    give_up_membership(run);
    while (access(run->wal, F_OK) == 0 && may_wait(had_flusher ? deadline_ns : alone_ns, CLOSING_NAP_NS)) {
        bool has_flusher = probe(run, SHMLOG_LOCK_FLUSHER) != SHMLOG_LOCK_FREE ||
                           probe(run, SHMLOG_LOCK_START) != SHMLOG_LOCK_FREE;
        bool has_owners = probe(run, SHMLOG_LOCK_MEMBER) == SHMLOG_LOCK_SHARED;
        if (has_owners || (had_flusher && !has_flusher)) {
            return;
        }
        had_flusher = has_flusher;
    }
}

static void tell(int code, void *unused)
{
    (void)unused;
    if (getpid() != process) {
        return; /* a child, made by a fork that no handler has heard of */
    }
    for (awaited *run = runs; run; run = run->next) {
        decide(run, status_of(code));
    }
    int64_t now_ns = shmlog_clock_ns(CLOCK_MONOTONIC);
    for (const awaited *run = runs; run; run = run->next) {
        wait_for_answer(run, now_ns + ANSWER_NS);
    }
    for (awaited *run = runs; run; run = run->next) {
        if (run->wal[0]) {
            see_off(run, now_ns + CLOSING_NS);
        }
    }
}

/* In a forked child, which is no owner: it must not hold the locks either. */
static void forget_all(void)
{
    for (awaited *run = runs; run; run = run->next) {
        run->lock.pin = NULL; /* that is the parent's alone */
        shmlog_description_close(&run->lock);
    }
    runs = NULL;
    process = getpid(); /* it may make runs of its own, and on_exit(3) holds for it too */
}

static void watch_exit(void)
{
    process = getpid();
    if (on_exit(tell, NULL) != 0 || pthread_atfork(NULL, NULL, forget_all) != 0) {
        process = 0;
    }
}

static shmlog_header *map_header(const shmlog_segment *segment, const char *path)
{
    /* Never by the description that locks: a mapping holds it, in forked children too. */
    int fd = shmlog_description_reopen(&segment->file, path);
    shmlog_header *header =
        fd < 0 ? MAP_FAILED : mmap(NULL, SHMLOG_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (fd >= 0) {
        close(fd);
    }
    return header == MAP_FAILED ? NULL : header;
}

static bool become_owner(awaited *run, const shmlog_segment *segment, const char *path)
{
    run->header = map_header(segment, path);
    if (!run->header) {
        return false;
    }
    int fd = shmlog_description_reopen(&segment->file, path);
    bool is_kept = fd >= 0 && shmlog_description_keep(&run->lock, fd) == 0;
    if (is_kept && shmlog_lock_take(fd, SHMLOG_LOCK_MEMBER, false) == 0) {
        shmlog_description_pin(&run->lock);
        return true;
    }
    if (fd >= 0) {
        close(fd);
    }
    munmap(run->header, SHMLOG_PAGE);
    return false;
}

bool shmlog_exits_await(const shmlog_segment *segment, const char *path, uint32_t likely, bool by_maker,
                        const char *wal)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, watch_exit);
    size_t bytes = wal ? strlen(wal) + 1 : 1;
    awaited *run = process == getpid() ? calloc(1, sizeof *run + bytes) : NULL;
    if (!run || !become_owner(run, segment, path)) {
        free(run);
        return false;
    }
    run->by_maker = by_maker;
    memcpy(run->wal, wal ? wal : "", bytes);
    add(&run->header->likely_status, likely, by_maker);
    /* CONTROL, release side: the likely status comes before. */
    atomic_fetch_add_explicit(&run->header->exiting, 1, memory_order_acq_rel);
    run->next = runs;
    runs = run;
    return true;
}

#else

bool shmlog_exits_await(const shmlog_segment *segment, const char *path, uint32_t likely, bool by_maker,
                        const char *wal)
{
    (void)segment, (void)path, (void)likely, (void)by_maker, (void)wal;
    return false;
}

#endif
