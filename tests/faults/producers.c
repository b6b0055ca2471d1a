/* Producers without Python, made to be killed and frozen.
 *
 *   producers step SEGMENT NOTES OWNER CASE ROUNDS  one call, between two marks (see stepper.c)
 *   producers busy SEGMENT NOTES OWNER              logs until it is told to stop
 *
 * The record of step i has the value i / 2 + 1 / 4. NOTES say how many calls
 * have returned. tests/faults/arena.py knows what each case logs. */
#include "client.h"

#include <signal.h>
#include <sys/wait.h>

enum { ROUND = 24, EXTENDED = 20, EVENT_BYTES = 200, FORKED_STEP = 5000, TAIL_STEP = 1000, PATIENCE_S = 60 };

/* Shared with the test. */
typedef struct {
    _Atomic uint64_t returned; /* calls */
    _Atomic uint64_t lane;     /* plus one */
    _Atomic uint64_t stop;     /* set by the test */
    uint64_t unused;
} notes;

typedef struct {
    client client;
    notes *notes;
    const char *prefix; /* of the names */
    uint32_t x;         /* id of the name it logs most */
    uint32_t row[4];    /* those of a row */
    char name[64];      /* the new one */
    char payload[EVENT_BYTES];
} victim;

static shmlog_lane *lane_of(victim *self) { return &self->client.producer.lane; }

static void mark(void) { kill(getpid(), SIGSTOP); }

/* relaxed, here and below: the notes tell the test, and publish nothing. */

static void returned(victim *self)
{
    if (lane_of(self)->slots) {
        atomic_store_explicit(&self->notes->lane, self->client.producer.lane_number + 1, memory_order_relaxed);
    }
    atomic_fetch_add_explicit(&self->notes->returned, 1, memory_order_relaxed);
}

static double value_of(int64_t step) { return (double)step / 2 + 0.25; }

static uint64_t bits_of(double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static uint32_t intern_suffix(victim *self, const char *suffix)
{
    snprintf(self->name, sizeof self->name, "%s.%s", self->prefix, suffix);
    return intern(&self->client, self->name);
}

static void attach(victim *self)
{
    join(&self->client);
    self->x = intern_suffix(self, "x");
}

/* ---- calls ---- */

static void log_scalar(victim *self, uint32_t name, int64_t step, bool wait)
{
    if (find_room(&self->client, 1, 1, wait)) {
        shmlog_lane_put(lane_of(self), ticks(&self->client), bits_of(value_of(step)), step, name, SHMLOG_FLOAT);
    }
    returned(self);
}

static void log_row(victim *self, int64_t step)
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
    if (find_room(&self->client, slots, count, true)) {
        shmlog_lane *lane = lane_of(self);
        shmlog_lane_write_row(lane, lane->head, ticks(&self->client), step, values, count, slots);
        shmlog_lane_advance(lane, slots);
    }
    returned(self);
}

static void log_event(victim *self, int64_t step)
{
    (void)step; /* stands in the payload */
    if (find_room(&self->client, 1 + shmlog_data_slots(EVENT_BYTES), 1, true)) {
        shmlog_unit_head head = {ticks(&self->client), 0, self->x, SHMLOG_EVENT, 0};
        shmlog_lane *lane = lane_of(self);
        shmlog_lane_advance(lane, shmlog_lane_write_bytes(lane, lane->head, &head, self->payload, EVENT_BYTES));
    }
    returned(self);
}

static void log_extend(victim *self, int64_t step)
{
    uint64_t ts = ticks(&self->client);
    for (int64_t i = step; i < step + EXTENDED; i++) {
        if (find_room(&self->client, 1, 1, true)) {
            shmlog_lane_put(lane_of(self), ts, bits_of(value_of(i)), i, self->x, SHMLOG_FLOAT);
        }
    }
    returned(self);
}

/* ---- cases: what happens between the marks ---- */

typedef struct {
    const char *name;
    void (*prepare)(victim *self, int64_t step); /* after the rounds; may be NULL */
    void (*call)(victim *self, int64_t step);
} stepped;

static void call_scalar(victim *self, int64_t step) { log_scalar(self, self->x, step, false); }

static void call_new_name(victim *self, int64_t step) { log_scalar(self, intern(&self->client, self->name), step, false); }

static void call_attach(victim *self, int64_t step)
{
    attach(self);
    log_scalar(self, self->x, step, false);
}

static void call_detach(victim *self, int64_t step)
{
    (void)step;
    shmlog_producer_leave(&self->client.producer);
    shmlog_segment_close(&self->client.segment);
}

/* Make another segment, beside the one that there is. */
static void call_create(victim *self, int64_t step)
{
    static shmlog_segment made;
    shmlog_geometry geometry = {.lanes = 2, .lane_slots = 64, .run_id = "made", .run_dir = "/nowhere"};
    (void)step;
    int fd = open(self->name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0 || shmlog_segment_create(&made, fd, &geometry) != 0) {
        fail(self->name);
    }
}

/* The child logs under the name of its parent, into a lane of its own. */
static void call_fork(victim *self, int64_t step)
{
    (void)step;
    if (fork() == 0) {
        self->notes++;
        self->client.owner = "child";
        log_scalar(self, self->x, FORKED_STEP, false);
        mark();
        for (int64_t i = 1; i <= ROUND; i++) {
            log_scalar(self, self->x, FORKED_STEP + i, true);
        }
        _exit(0);
    }
}

/* Log until the next record needs a look at tail. */
static void fill_half(victim *self, int64_t step)
{
    while (shmlog_producer_has_room(&self->client.producer, 1)) {
        log_scalar(self, self->x, step++, false);
    }
}

static void fill(victim *self, int64_t step)
{
    while (lane_of(self)->head - lane_of(self)->tail_seen < shmlog_lane_capacity(lane_of(self))) {
        log_scalar(self, self->x, step++, false);
    }
}

static void name_anew(victim *self, int64_t step)
{
    (void)step;
    snprintf(self->name, sizeof self->name, "%s.new", self->prefix);
}

static void write_payload(victim *self, int64_t step)
{
    memset(self->payload, 'e', sizeof self->payload);
    self->payload[snprintf(self->payload, sizeof self->payload, "{\"step\":%lld}", (long long)step)] = ' ';
}

static void name_row(victim *self, int64_t step)
{
    (void)step;
    for (int i = 0; i < 4; i++) {
        char digit[] = {(char)('0' + i), '\0'};
        self->row[i] = intern_suffix(self, digit);
    }
}

static void name_segment(victim *self, int64_t step)
{
    (void)step;
    snprintf(self->name, sizeof self->name, "%s.new", self->client.path);
}

static const stepped cases[] = {
    {"scalar", NULL, call_scalar},          {"half", fill_half, call_scalar}, {"full", fill, call_scalar},
    {"new_name", name_anew, call_new_name}, {"row", name_row, log_row},       {"event", write_payload, log_event},
    {"extend", NULL, log_extend},           {"attach", NULL, call_attach},    {"detach", NULL, call_detach},
    {"create", name_segment, call_create},
    {"fork_child", NULL, call_fork},        {"fork_parent", NULL, call_fork},
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
static int step(victim *self, const char *name, int rounds)
{
    const stepped *chosen = find_case(name);
    int64_t next = 0;
    if (rounds) {
        attach(self);
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
    for (int i = 0; self->client.segment.base && i < ROUND; i++) {
        log_scalar(self, self->x, TAIL_STEP + i, true);
    }
    while (wait(NULL) > 0) {
    }
    return 0;
}

/* ---- busy ---- */

static int busy(victim *self)
{
    struct timespec nap = {0, 200000};
    attach(self);
    for (int64_t i = 0; !atomic_load_explicit(&self->notes->stop, memory_order_relaxed); i++) {
        log_scalar(self, self->x, i, true);
        if (i % 16 == 15) {
            nanosleep(&nap, NULL);
        }
    }
    shmlog_producer_leave(&self->client.producer);
    return 0;
}

int main(int argc, char **argv)
{
    static victim self;
    if (argc < 5) {
        fail("usage");
    }
    self.client.path = argv[2];
    self.client.owner = argv[4];
    self.notes = map_notes(argv[3], 2 * sizeof(notes));
    if (strcmp(argv[1], "busy") == 0) {
        self.prefix = argv[4];
        return busy(&self);
    }
    self.prefix = "v";
    alarm(PATIENCE_S); /* one that hangs is to fail the test */
    return argc == 7 ? step(&self, argv[5], atoi(argv[6])) : 2;
}
