#include "signals.h"

#include <pthread.h>
#include <signal.h>
#include <stddef.h>
#include <sys/types.h>
#include <unistd.h>

#define RUNS_MAX 256 /* that a process has made and not finished; of more, the signal says nothing */

static const int watched_signals[] = {SIGTERM, SIGINT};

/* WATCH: a header that is taken out of its place belongs to who has taken it. */
static _Atomic(shmlog_header *) places[RUNS_MAX];
static _Atomic int ending; /* a handler is at work: set before it takes anything */
static pid_t maker;

/* Only what is async-signal-safe. */
static void leave_number(int number)
{
    /* A child in the moment of its fork, or of a fork that no handler has heard of, is not the maker. */
    if (getpid() == maker) {
        /* relaxed: published by what is taken below. */
        atomic_store_explicit(&ending, 1, memory_order_relaxed);
        for (size_t i = 0; i < RUNS_MAX; i++) {
            /* WATCH, release side, and acquire side of who has put it there. */
            shmlog_header *header = atomic_exchange_explicit(&places[i], NULL, memory_order_acq_rel);
            if (header) {
                /* relaxed: who reads it knows by a lock that we are dead. */
                atomic_store_explicit(&header->ended_by, (uint32_t)number, memory_order_relaxed);
            }
        }
    }
    signal(number, SIG_DFL);
    raise(number); /* SA_NODEFER: at once */
}

static void forget_all(void)
{
    for (size_t i = 0; i < RUNS_MAX; i++) {
        /* relaxed: a forked child has one thread. */
        atomic_store_explicit(&places[i], NULL, memory_order_relaxed);
    }
    atomic_store_explicit(&ending, 0, memory_order_relaxed); /* relaxed: as above */
    maker = getpid();
}

static void watch_forks(void)
{
    maker = getpid();
    (void)pthread_atfork(NULL, NULL, forget_all); /* without it, getpid() tells */
}

static void install(int number)
{
    struct sigaction now;
    if (sigaction(number, NULL, &now) == 0 && !(now.sa_flags & SA_SIGINFO) && now.sa_handler == SIG_DFL) {
        struct sigaction ours = {.sa_handler = leave_number, .sa_flags = SA_NODEFER | SA_ONSTACK};
        sigemptyset(&ours.sa_mask);
        (void)sigaction(number, &ours, NULL);
    }
}

void shmlog_signals_watch(shmlog_header *header)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    if (getpid() == 1) {
        return; /* the first process of a container: the default lets it live on */
    }
    pthread_once(&once, watch_forks);
    for (size_t i = 0; i < RUNS_MAX; i++) {
        shmlog_header *none = NULL;
        /* WATCH, release side: the header is mapped. relaxed: of a place that is taken nothing is read. */
        if (atomic_compare_exchange_strong_explicit(&places[i], &none, header, memory_order_release,
                                                    memory_order_relaxed)) {
            break;
        }
    }
    for (size_t i = 0; i < sizeof watched_signals / sizeof *watched_signals; i++) {
        install(watched_signals[i]);
    }
}

bool shmlog_signals_forget(shmlog_header *header)
{
    for (size_t i = 0; i < RUNS_MAX; i++) {
        shmlog_header *found = header;
        /* WATCH, acquire side: if a handler has taken it, `ending` is seen. */
        if (atomic_compare_exchange_strong_explicit(&places[i], &found, NULL, memory_order_acq_rel,
                                                    memory_order_acquire)) {
            return true;
        }
    }
    /* relaxed: ordered by the places above. */
    return atomic_load_explicit(&ending, memory_order_relaxed) == 0;
}
