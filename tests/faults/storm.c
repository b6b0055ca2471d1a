/* Producers that are killed at random times, under load.
 *
 *   storm SEGMENT NOTES KILLS SEED  keeps three at work and kills one after the other
 *
 * Producer p's call c logs under step p << 32 | c, so that each slot tells where
 * it belongs, and its value is a hash of the step. NOTES hold, for each producer,
 * how many of its calls have returned, and how many records they have dropped.
 * tests/faults/test_storm.py checks the log. */
#include "client.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>

enum { AT_WORK = 3, ROW_RECORDS = 3, EVENT_BYTES = 100, DWELL_NS = 600000, PAUSE_NS = 50000 };

typedef struct {
    _Atomic uint64_t returned;
    _Atomic uint64_t dropped;
} notes;

typedef struct {
    client client;
    notes *notes;
    uint32_t name;
} producer;

static uint64_t next_random(uint64_t *state)
{
    /* Source: Vigna, splitmix64. */
    uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

static uint64_t value_of(int64_t step) { return (uint64_t)step * UINT64_C(0x9e3779b97f4a7c15); }

/* relaxed, here and below: the notes tell the test after our death. */
static bool has_room(producer *self, uint32_t slots, uint32_t records)
{
    if (find_room(&self->client, slots, records, false)) {
        return true;
    }
    atomic_fetch_add_explicit(&self->notes->dropped, records, memory_order_relaxed);
    return false;
}

static void log_scalar(producer *self, int64_t step)
{
    if (has_room(self, 1, 1)) {
        shmlog_lane_put(&self->client.producer.lane, ticks(&self->client), value_of(step), step, self->name,
                        SHMLOG_FLOAT);
    }
}

static void log_row(producer *self, int64_t step)
{
    shmlog_value values[ROW_RECORDS];
    for (int i = 0; i < ROW_RECORDS; i++) {
        values[i] = (shmlog_value){.name_id = self->name, .kind = SHMLOG_FLOAT, .bits = value_of(step)};
    }
    if (has_room(self, 1 + ROW_RECORDS, ROW_RECORDS)) {
        shmlog_lane *lane = &self->client.producer.lane;
        shmlog_lane_write_row(lane, lane->head, ticks(&self->client), step, values, ROW_RECORDS, 1 + ROW_RECORDS);
        shmlog_lane_advance(lane, 1 + ROW_RECORDS);
    }
}

static void log_event(producer *self, int64_t step)
{
    char payload[EVENT_BYTES];
    memset(payload, 'e', sizeof payload);
    if (has_room(self, 1 + shmlog_data_slots(EVENT_BYTES), 1)) {
        shmlog_lane *lane = &self->client.producer.lane;
        shmlog_unit_head head = {ticks(&self->client), step, self->name, SHMLOG_EVENT, 0};
        shmlog_lane_advance(lane, shmlog_lane_write_bytes(lane, lane->head, &head, payload, EVENT_BYTES));
    }
}

/* A little of what a training step would take, and a wait once in so many calls. */
static void work(uint64_t chance, uint64_t calls)
{
    struct timespec pause = {0, PAUSE_NS};
    if (chance % calls == 0) {
        nanosleep(&pause, NULL);
    }
    for (volatile uint64_t turns = chance % 512; turns; turns--) {
    }
}

static void produce(const char *path, uint64_t number, notes *notes, uint64_t seed)
{
    static producer self;
    char owner[32];
    snprintf(owner, sizeof owner, "%llu", (unsigned long long)number);
    self.client.path = path;
    self.client.owner = owner;
    self.notes = notes;
    join(&self.client);
    self.name = intern(&self.client, "x");
    for (uint64_t call = 0;; call++) {
        int64_t step = (int64_t)(number << 32 | call);
        if (call % 16 == 7) {
            log_row(&self, step);
        } else if (call % 64 == 33) {
            log_event(&self, step);
        } else {
            log_scalar(&self, step);
        }
        atomic_store_explicit(&notes->returned, call + 1, memory_order_relaxed);
        work(next_random(&seed), number % 2 ? 128 : 16); /* some fill their lane at times, others never */
    }
}

static pid_t start(const char *path, uint64_t number, notes *notes, uint64_t seed)
{
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        produce(path, number, notes, seed);
    }
    if (pid < 0) {
        fail("fork");
    }
    return pid;
}

static void end(pid_t pid)
{
    int status;
    kill(pid, SIGKILL);
    if (waitpid(pid, &status, 0) != pid || !WIFSIGNALED(status)) {
        fprintf(stderr, "a producer ended by itself\n");
        exit(2);
    }
}

int main(int argc, char **argv)
{
    if (argc != 5) {
        fail("usage");
    }
    uint64_t kills = strtoull(argv[3], NULL, 10);
    uint64_t chance = strtoull(argv[4], NULL, 10);
    notes *all = map_notes(argv[2], (kills + AT_WORK) * sizeof *all);
    pid_t at_work[AT_WORK];
    uint64_t number = 0;

    for (; number < AT_WORK; number++) {
        at_work[number] = start(argv[1], number, &all[number], next_random(&chance));
    }
    for (; number < kills + AT_WORK; number++) {
        struct timespec dwell = {0, (long)(next_random(&chance) % DWELL_NS)};
        nanosleep(&dwell, NULL);
        pid_t *one = &at_work[next_random(&chance) % AT_WORK];
        end(*one);
        *one = start(argv[1], number, &all[number], next_random(&chance));
    }
    for (int i = 0; i < AT_WORK; i++) {
        end(at_work[i]);
    }
    return 0;
}
