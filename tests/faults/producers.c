/* Producers without Python, made to be killed and frozen.
 *
 *   producers step SEGMENT NOTES CASE ROUNDS  one call, between two marks (see stepper.c)
 *   producers busy SEGMENT NOTES OWNER        logs until it is killed or told to stop
 *
 * A producer called "v" logs under names that begin with "v."; its record of
 * step i has the value i / 2 + 1 / 4. It says in NOTES how many of its calls
 * have returned. tests/faults/stepping.py knows what each case logs. */
#include "../../shmlog/csrc/clock.h"
#include "../../shmlog/csrc/names.h"
#include "../../shmlog/csrc/producer.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { ROUND = 24, EXTENDED = 20, EVENT_BYTES = 200, FORKED_STEP = 5000, TAIL_STEP = 1000 };

/* Shared with the test. */
typedef struct {
    _Atomic uint64_t returned; /* calls */
    _Atomic uint64_t lane;     /* plus one */
    _Atomic uint64_t stop;
    _Atomic uint64_t written; /* bits of the next number, in "busy" */
} notes;

typedef struct {
    shmlog_segment segment;
    shmlog_producer producer;
    const char *path;
    const char *owner;
    notes *notes;
    uint32_t x;      /* id of the name it logs most */
    uint32_t row[4]; /* those of a row */
    char name[64]; /* the new one */
    char payload[EVENT_BYTES];
} client;

static void fail(const char *what)
{
    perror(what);
    exit(2);
}

static void mark(void) { kill(getpid(), SIGSTOP); }

/* relaxed, here and below: the notes tell the test, and publish nothing. */

static void returned(client *self)
{
    atomic_fetch_add_explicit(&self->notes->returned, 1, memory_order_relaxed);
}

static double value_of(int64_t step) { return (double)step / 2 + 0.25; }

static uint64_t bits_of(double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* ---- what the Python layer does around the core ---- */

static uint32_t intern(client *self)
{
    uint64_t seed = (uint64_t)self->segment.header->anchor.utc_ns;
    return shmlog_name_intern(self->segment.names, seed, self->name, (uint32_t)strlen(self->name));
}

static void join(client *self)
{
    int fd = open(self->path, O_RDWR | O_CLOEXEC);
    if (fd < 0 || shmlog_segment_open(&self->segment, fd) != 0 || shmlog_producer_watch_forks() != 0 ||
        shmlog_producer_join(&self->producer, &self->segment, self->path) != 0) {
        fail("join");
    }
    snprintf(self->name, sizeof self->name, "%s.x", self->owner);
    self->x = intern(self);
}

static void allot(client *self)
{
    char owner[64];
    int bytes = snprintf(owner, sizeof owner, "{\"who\":\"%s\"}", self->owner);
    if (shmlog_producer_allot(&self->producer, owner, (uint32_t)bytes) != 0) {
        fail("allot");
    }
    atomic_store_explicit(&self->notes->lane, self->producer.lane_number + 1, memory_order_relaxed);
}

/* Have room, waiting for it if `wait`; else the records are dropped. */
static bool find_room(client *self, uint32_t slots, uint32_t records, bool wait)
{
    struct timespec nap = {0, 50000};
    if (shmlog_producer_has_room(&self->producer, slots)) {
        return true;
    }
    if (!self->producer.lane.slots) {
        allot(self);
    }
    while (shmlog_producer_make_room(&self->producer, slots) == SHMLOG_FULL) {
        if (!wait) {
            shmlog_producer_drop(&self->producer, SHMLOG_DROP_FULL, records);
            return false;
        }
        nanosleep(&nap, NULL);
    }
    return true;
}

static uint64_t ticks(const client *self) { return shmlog_ticks(self->segment.tsc); }

/* ---- calls ---- */

static void log_scalar(client *self, uint32_t name, int64_t step, bool wait)
{
    if (find_room(self, 1, 1, wait)) {
        shmlog_lane_put(&self->producer.lane, ticks(self), bits_of(value_of(step)), step, name, SHMLOG_FLOAT);
    }
    returned(self);
}

static void log_row(client *self, int64_t step)
{
    static const char text[] = "a text that takes two slots and not one";
    shmlog_value values[] = {
        {.name_id = self->row[0], .kind = SHMLOG_FLOAT, .bits = bits_of(value_of(step))},
        {.name_id = self->row[1], .kind = SHMLOG_INT, .bits = (uint64_t)step},
        {.name_id = self->row[2], .kind = SHMLOG_LONGTEXT, .bytes = text, .count = sizeof text - 1},
        {.name_id = self->row[3], .kind = SHMLOG_BOOL, .bits = 1},
    };
    uint32_t count = sizeof values / sizeof *values;
    uint32_t slots = 1;
    for (uint32_t i = 0; i < count; i++) {
        slots += shmlog_value_slots(&values[i]);
    }
    if (find_room(self, slots, count, true)) {
        shmlog_lane *lane = &self->producer.lane;
        shmlog_lane_write_row(lane, lane->head, ticks(self), step, values, count, slots);
        shmlog_lane_advance(lane, slots);
    }
    returned(self);
}

static void log_event(client *self, int64_t step)
{
    (void)step; /* stands in the payload */
    if (find_room(self, 1 + shmlog_data_slots(EVENT_BYTES), 1, true)) {
        shmlog_unit_head head = {ticks(self), 0, self->x, SHMLOG_EVENT, 0};
        shmlog_lane *lane = &self->producer.lane;
        shmlog_lane_advance(lane, shmlog_lane_write_bytes(lane, lane->head, &head, self->payload, EVENT_BYTES));
    }
    returned(self);
}

static void log_extend(client *self, int64_t step)
{
    uint64_t ts = ticks(self);
    for (int64_t i = step; i < step + EXTENDED; i++) {
        if (find_room(self, 1, 1, true)) {
            shmlog_lane_put(&self->producer.lane, ts, bits_of(value_of(i)), i, self->x, SHMLOG_FLOAT);
        }
    }
    returned(self);
}

/* ---- cases: what happens between the marks ---- */

typedef struct {
    const char *name;
    void (*prepare)(client *self, int64_t step); /* after the rounds; may be NULL */
    void (*call)(client *self, int64_t step);
} stepped;

static void call_scalar(client *self, int64_t step) { log_scalar(self, self->x, step, false); }

static void call_new_name(client *self, int64_t step) { log_scalar(self, intern(self), step, false); }

static void call_attach(client *self, int64_t step)
{
    join(self);
    log_scalar(self, self->x, step, false);
}

static void call_detach(client *self, int64_t step)
{
    (void)step;
    shmlog_producer_leave(&self->producer);
    shmlog_segment_close(&self->segment);
}

/* The child logs under the name of its parent, into a lane of its own. */
static void call_fork(client *self, int64_t step)
{
    (void)step;
    if (fork() == 0) {
        self->notes++;
        self->owner = "child";
        log_scalar(self, self->x, FORKED_STEP, false);
        mark();
        for (int64_t i = 1; i <= ROUND; i++) {
            log_scalar(self, self->x, FORKED_STEP + i, true);
        }
        _exit(0);
    }
}

/* Log until the next record needs a look at tail. */
static void fill_half(client *self, int64_t step)
{
    while (shmlog_producer_has_room(&self->producer, 1)) {
        log_scalar(self, self->x, step++, false);
    }
}

static void fill(client *self, int64_t step)
{
    while (self->producer.lane.head - self->producer.lane.tail_seen < shmlog_lane_capacity(&self->producer.lane)) {
        log_scalar(self, self->x, step++, false);
    }
}

static void name_anew(client *self, int64_t step)
{
    (void)step;
    snprintf(self->name, sizeof self->name, "%s.new", self->owner);
}

static void write_payload(client *self, int64_t step)
{
    memset(self->payload, 'e', sizeof self->payload);
    self->payload[snprintf(self->payload, sizeof self->payload, "{\"step\":%lld}", (long long)step)] = ' ';
}

static void name_row(client *self, int64_t step)
{
    (void)step;
    for (int i = 0; i < 4; i++) {
        snprintf(self->name, sizeof self->name, "%s.%d", self->owner, i);
        self->row[i] = intern(self);
    }
}

static const stepped cases[] = {
    {"scalar", NULL, call_scalar},          {"half", fill_half, call_scalar}, {"full", fill, call_scalar},
    {"new_name", name_anew, call_new_name}, {"row", name_row, log_row},       {"event", write_payload, log_event},
    {"extend", NULL, log_extend},           {"attach", NULL, call_attach},    {"detach", NULL, call_detach},
    {"fork", NULL, call_fork},
};

static const stepped *find_case(const char *name)
{
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        if (strcmp(cases[i].name, name) == 0) {
            return &cases[i];
        }
    }
    fail("no such case");
    return NULL;
}

/* Rounds of records with a mark after each, so that the test can drain; then the call. */
static int step(client *self, const char *name, int rounds)
{
    const stepped *chosen = find_case(name);
    int64_t next = 0;
    if (rounds) {
        join(self);
    }
    for (int round = 0; round < rounds; round++) {
        for (int i = 0; i < ROUND; i++) {
            log_scalar(self, self->x, next++, true);
        }
        if (round + 1 < rounds) {
            mark();
        }
    }
    if (chosen->prepare) {
        chosen->prepare(self, next);
        next = (int64_t)atomic_load_explicit(&self->notes->returned, memory_order_relaxed);
    }
    mark();
    chosen->call(self, next);
    mark();
    for (int i = 0; self->segment.base && i < ROUND; i++) {
        log_scalar(self, self->x, TAIL_STEP + i, true);
    }
    while (wait(NULL) > 0) {
    }
    return 0;
}

/* ---- busy ---- */

static int busy(client *self)
{
    struct timespec nap = {0, 200000};
    join(self);
    for (int64_t i = 0; !atomic_load_explicit(&self->notes->stop, memory_order_relaxed); i++) {
        log_scalar(self, self->x, i, true);
        if (i % 16 == 15) {
            nanosleep(&nap, NULL);
        }
    }
    shmlog_producer_leave(&self->producer);
    return 0;
}

static notes *map_notes(const char *path)
{
    int fd = open(path, O_RDWR | O_CLOEXEC);
    void *base = mmap(NULL, 2 * sizeof(notes), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (fd < 0 || base == MAP_FAILED) {
        fail(path);
    }
    close(fd);
    return base;
}

int main(int argc, char **argv)
{
    static client self;
    if (argc < 5) {
        fail("usage");
    }
    self.path = argv[2];
    self.notes = map_notes(argv[3]);
    if (strcmp(argv[1], "busy") == 0) {
        self.owner = argv[4];
        return busy(&self);
    }
    self.owner = "v";
    return step(&self, argv[4], atoi(argv[5]));
}
