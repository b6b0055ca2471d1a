/* The core under load, for sanitizers: producers in threads or in processes that are killed, names, hand-over
 * of lanes, drops, and the drain, which is begun anew now and then. What comes into the log is checked:
 *
 *   I1  each slot's commit word is that of its position, and its payload is what was logged
 *   I3  of each author, the records are there in order, none twice, none missing but the dropped ones
 *   I4  what is offered is in the log or in a GAP, but for the call that a killed author was in
 *
 *     stress FOLDER SEED AUTHORS RECORDS threads|processes
 *
 * An author is one life of a producer: it joins, is allotted a lane, offers up to RECORDS records and leaves, or
 * is killed. A record tells which it is by its step, how many its author has dropped before it by its ts, and
 * has a value that follows from author and step.
 */
#include "clock.h"
#include "cut.h"
#include "drain.h"
#include "names.h"
#include "producer.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

enum { LANES = 4, SLOTS = 256, AT_ONCE = 5, TEXT_MAX = 300, ROW_MAX = 4, LOG_BYTES = 1 << 20, NAMES = 1000 };

/* What an author says of itself; in memory that outlives it. */
typedef struct {
    _Atomic uint64_t written;
    _Atomic uint64_t dropped;
    _Atomic uint32_t killed;
} account;

static shmlog_segment segment;
static char path[4096];
static uint64_t seed;
static uint64_t records;
static uint32_t authors;
static account *accounts;
static _Atomic uint32_t next_author;
static _Atomic uint32_t running;
/* The kernel orders who gives a lock back before who takes it; a sanitizer does not know. */
static pthread_mutex_t kernel = PTHREAD_MUTEX_INITIALIZER;

#define CHECK(condition, ...)                                                                                          \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, __VA_ARGS__);                                                                              \
            fprintf(stderr, "\n");                                                                                     \
            exit(1);                                                                                                   \
        }                                                                                                              \
    } while (0)

static uint64_t mix(uint64_t a, uint64_t b)
{
    uint64_t x = (a + 1) * UINT64_C(0x9e3779b97f4a7c15) ^ (b + 1) * UINT64_C(0xc2b2ae3d27d4eb4f);
    x ^= x >> 29;
    x *= UINT64_C(0xbf58476d1ce4e5b9);
    return x ^ x >> 32;
}

/* ---- what a record is: it follows from its author and its number ---- */

static uint32_t text_bytes(uint32_t author, uint64_t number) { return (uint32_t)(mix(author, number) % TEXT_MAX); }

static void make_text(uint32_t author, uint64_t number, char *text)
{
    for (uint32_t i = 0; i < text_bytes(author, number); i++) {
        text[i] = (char)('a' + mix(mix(author, number), i) % 26);
    }
}

static shmlog_value make_value(uint32_t author, uint64_t number, uint32_t name_id, char *text)
{
    shmlog_value value = {.name_id = name_id, .kind = SHMLOG_FLOAT, .bits = mix(author, number)};
    if (mix(number, author) % 5 == 0) {
        make_text(author, number, text);
        value.kind = SHMLOG_LONGTEXT;
        value.count = text_bytes(author, number);
        value.bytes = text;
    }
    return value;
}

/* ---- an author ---- */

static void say(_Atomic uint64_t *counter, uint64_t records_more)
{
    atomic_fetch_add_explicit(counter, records_more, memory_order_relaxed);
}

static uint32_t value_slots(const shmlog_value *values, uint32_t count)
{
    uint32_t slots = 0;
    for (uint32_t i = 0; i < count; i++) {
        slots += shmlog_value_slots(&values[i]);
    }
    return slots;
}

/* Offer `count` records in one unit. */
static void offer(shmlog_producer *producer, uint32_t author, uint64_t number, uint32_t name_id, uint32_t count)
{
    shmlog_lane *lane = &producer->lane;
    static _Thread_local char texts[ROW_MAX][TEXT_MAX];
    shmlog_value values[ROW_MAX];
    for (uint32_t i = 0; i < count; i++) {
        values[i] = make_value(author, number + i, name_id, texts[i]);
    }
    uint32_t slots = value_slots(values, count) + (count > 1);
    bool fits = shmlog_producer_has_room(producer, slots);
    for (int tries = 0; !fits && tries < 20; tries++) {
        fits = shmlog_producer_make_room(producer, slots) != SHMLOG_FULL;
        if (!fits && mix(seed, number) % 8) {
            struct timespec nap = {0, 200000};
            nanosleep(&nap, NULL);
        }
    }
    uint64_t before = producer->dropped[SHMLOG_DROP_FULL];
    if (!fits) {
        shmlog_producer_drop(producer, SHMLOG_DROP_FULL, count);
        say(&accounts[author].dropped, count);
        return;
    }
    int64_t step = (int64_t)number;
    if (count > 1) {
        shmlog_lane_write_row(lane, lane->head, before, step, values, count, slots);
        shmlog_lane_advance(lane, slots);
    } else if (values[0].kind == SHMLOG_LONGTEXT && number % 2) {
        shmlog_unit_head head = {before, step, name_id, SHMLOG_EVENT, 0};
        shmlog_lane_advance(lane, shmlog_lane_write_bytes(lane, lane->head, &head, values[0].bytes, values[0].count));
    } else if (values[0].kind == SHMLOG_FLOAT) {
        shmlog_lane_put(lane, before, values[0].bits, step, name_id, SHMLOG_FLOAT);
    } else {
        shmlog_lane_put_value(lane, before, step, &values[0]);
    }
    say(&accounts[author].written, count);
}

/* Leave in the middle of a unit, as a killed one does: its members are there, its header is not. */
static void leave_half_a_unit(shmlog_producer *producer)
{
    if (shmlog_producer_make_room(producer, 4) != SHMLOG_FULL) {
        for (uint32_t i = 3; i > 0; i--) {
            shmlog_lane_commit(&producer->lane, producer->lane.head + i, 1, 2, 3, 0, SHMLOG_DATA, SHMLOG_MEMBER);
        }
    }
}

/* The id of a name that all authors use; the same for all of them. */
static uint32_t intern(const char *name)
{
    const char *text;
    uint32_t bytes = (uint32_t)strlen(name), found;
    uint32_t id = shmlog_name_intern(segment.names, seed, name, bytes);
    CHECK(id != SHMLOG_NO_NAME, "the name table is full");
    CHECK(shmlog_name_text(segment.names, id, &text, &found) && found == bytes && memcmp(text, name, bytes) == 0,
          "I5: %s is another name's id", name);
    return id;
}

/* Authors race for each new name. */
static void share_a_name(uint64_t number)
{
    static _Atomic uint32_t ids[NAMES];
    char name[32];
    uint32_t which = (uint32_t)(number / 8 % NAMES), first = 0;
    snprintf(name, sizeof name, "name %u", which);
    uint32_t id = intern(name);
    if (!atomic_compare_exchange_strong_explicit(&ids[which], &first, id + 1, memory_order_relaxed,
                                                 memory_order_relaxed)) {
        CHECK(first == id + 1, "%s has two ids", name);
    }
}

static void live(uint32_t author)
{
    shmlog_producer *producer = calloc(1, sizeof *producer);
    char name[32];
    int error;

    CHECK(producer, "out of memory");
    producer->lock.fd = -1;
    CHECK(shmlog_producer_join(producer, &segment, path, (shmlog_membership){true, 0}) == 0, "join: %s", strerror(errno));
    snprintf(name, sizeof name, "author %u", author);
    uint32_t id = intern(name);
    do {
        pthread_mutex_lock(&kernel);
        error = shmlog_producer_allot(producer, name, (uint32_t)strlen(name));
        pthread_mutex_unlock(&kernel);
        if (error == EAGAIN) {
            usleep(500);
        }
    } while (error == EAGAIN);
    CHECK(error == 0, "allot: %d", error);
    for (uint64_t number = 0; number < records;) {
        uint32_t count = mix(seed + author, number) % 4 ? 1 : 1 + (uint32_t)(mix(author, number) % ROW_MAX);
        if (number % 8 == 0) {
            share_a_name(number);
        }
        offer(producer, author, number, id, count);
        number += count;
    }
    if (mix(seed, author) % 2) {
        leave_half_a_unit(producer);
    }
    pthread_mutex_lock(&kernel);
    shmlog_producer_leave(producer);
    pthread_mutex_unlock(&kernel);
    free(producer);
}

/* ---- what the log says ---- */

typedef struct {
    uint64_t position;
    uint64_t told; /* drops that GAPs have told */
    uint32_t owner;
    bool owned;
} lane_book;

static lane_book lane_books[LANES];
static uint64_t *on_disk; /* records of each author */
static uint32_t author_of_name[SHMLOG_NAMES_MAX];
static uint64_t records_on_disk;

typedef struct {
    uint64_t ts;
    uint64_t value;
    int64_t step;
    uint64_t commit;
} log_slot;

static uint32_t get_u32(const unsigned char *at)
{
    uint32_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

static uint64_t get_u64(const unsigned char *at)
{
    uint64_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

static void copy_bytes(const log_slot *slots, uint32_t count, unsigned char *to)
{
    for (uint32_t at = 0; at < count; at += SHMLOG_DATA_BYTES) {
        uint32_t left = count - at;
        memcpy(to + at, ++slots, left < SHMLOG_DATA_BYTES ? left : SHMLOG_DATA_BYTES);
    }
}

static uint32_t author_named(const char *text, uint32_t bytes)
{
    char name[32] = {0};
    unsigned author = UINT32_MAX;
    memcpy(name, text, bytes < sizeof name ? bytes : sizeof name - 1);
    return sscanf(name, "author %u", &author) == 1 ? author : UINT32_MAX;
}

/* One record, of which `slots` is the first slot. Returns how many slots it has. */
static uint32_t check_record(lane_book *book, const log_slot *slots, uint64_t number)
{
    uint32_t author = author_of_name[shmlog_commit_name(slots->commit)];
    unsigned kind = shmlog_commit_kind(slots->commit);
    char expected[TEXT_MAX];
    unsigned char found[TEXT_MAX + SHMLOG_DATA_BYTES];

    CHECK(author < authors, "I5: name %u is no author's", shmlog_commit_name(slots->commit));
    CHECK(book->owned && book->owner == author, "I7: a record of author %u where %u owns the lane", author, book->owner);
    CHECK(number - slots->ts == on_disk[author], "I3: author %u: record %lu after %lu drops is number %lu on disk",
          author, (unsigned long)number, (unsigned long)slots->ts, (unsigned long)on_disk[author]);
    on_disk[author]++;
    records_on_disk++;
    if (kind == SHMLOG_FLOAT) {
        CHECK(slots->value == mix(author, number), "I1: author %u, record %lu: another value", author,
              (unsigned long)number);
        return 1;
    }
    uint32_t bytes = shmlog_extent_count(slots->value);
    CHECK(bytes == text_bytes(author, number), "I1: author %u, record %lu: %u bytes", author, (unsigned long)number,
          bytes);
    make_text(author, number, expected);
    copy_bytes(slots, bytes, found);
    CHECK(memcmp(expected, found, bytes) == 0, "I1: author %u, record %lu: another text", author,
          (unsigned long)number);
    return shmlog_extent_slots(slots->value);
}

/* One unit. Returns how many slots it has. */
static uint32_t check_unit(lane_book *book, const log_slot *slots)
{
    unsigned char bytes[SHMLOG_OWNER_BYTES_MAX + SHMLOG_DATA_BYTES];
    uint64_t total = 0, count;
    switch (shmlog_commit_kind(slots->commit)) {
    case SHMLOG_OWNER:
        copy_bytes(slots, shmlog_extent_count(slots->value), bytes);
        book->owner = author_named((char *)bytes, shmlog_extent_count(slots->value));
        book->owned = true;
        return shmlog_extent_slots(slots->value);
    case SHMLOG_GAP:
        copy_bytes(slots, SHMLOG_REASONS * 8, bytes);
        for (int reason = 0; reason < SHMLOG_REASONS; reason++) {
            total += get_u64(bytes + 8 * reason);
        }
        CHECK(total >= book->told, "I4: a GAP tells fewer drops than the one before");
        book->told = total;
        return SHMLOG_GAP_SLOTS;
    case SHMLOG_ROW:
        count = shmlog_extent_count(slots->value);
        for (uint32_t i = 0, at = 1; i < count; i++) {
            at += check_record(book, slots + at, (uint64_t)slots->step + i);
        }
        return shmlog_extent_slots(slots->value);
    default:
        return check_record(book, slots, (uint64_t)slots->step);
    }
}

static void check_entry(const unsigned char *entry, const log_slot *slots)
{
    uint32_t lane = get_u32(entry), count = get_u32(entry + 4);
    lane_book *book = &lane_books[lane];

    CHECK(lane < LANES, "entry of lane %u", lane);
    CHECK(get_u64(entry + 8) == book->position, "I3: lane %u goes on at %lu, not at %lu", lane,
          (unsigned long)get_u64(entry + 8), (unsigned long)book->position);
    for (uint32_t i = 0; i < count; i++) {
        CHECK(slots[i].commit >> 32 == (uint32_t)((book->position + i) / SLOTS + 1),
              "I1: lane %u, position %lu: the commit word of another lap", lane, (unsigned long)(book->position + i));
    }
    for (uint32_t i = 0; i < count;) {
        i += check_unit(book, slots + i);
        CHECK(i <= count, "I3: lane %u: half a unit", lane);
    }
    book->position += count;
}

static void check_names(const unsigned char *names, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        uint32_t id = get_u32(names), bytes = get_u32(names + 4);
        CHECK(id < SHMLOG_NAMES_MAX, "I5: name id %u", id);
        author_of_name[id] = author_named((const char *)names + 8, bytes);
        names += 8 + (bytes + 7) / 8 * 8;
    }
}

static void check_log(int folder, uint32_t number)
{
    char name[32];
    snprintf(name, sizeof name, "%06u.wal", number);
    int fd = openat(folder, name, O_RDONLY);
    CHECK(fd >= 0, "log %u: %s", number, strerror(errno));
    off_t size = lseek(fd, 0, SEEK_END);
    unsigned char *data = malloc((size_t)size + 1);
    CHECK(data && pread(fd, data, (size_t)size, 0) == size, "log %u can't be read", number);
    for (uint64_t at = 0; at < (uint64_t)size; at += get_u64(data + at + 8)) {
        const unsigned char *frame = data + at;
        uint32_t lanes = get_u32(frame + 24);
        const unsigned char *names = frame + 232 + (size_t)lanes * 80;
        const unsigned char *raw = names + get_u32(frame + 48) + get_u32(frame + 52);
        uint64_t slots = get_u32(frame + 36);
        log_slot *copy = malloc((slots + 1) * sizeof *copy);
        CHECK(copy, "out of memory");
        memcpy(copy, raw, slots * sizeof *copy);
        check_names(names, get_u32(frame + 28));
        const log_slot *next = copy;
        for (uint32_t i = 0; i < lanes; i++) {
            check_entry(frame + 232 + i * 80, next);
            next += get_u32(frame + 232 + i * 80 + 4);
        }
        free(copy);
    }
    free(data);
    close(fd);
    unlinkat(folder, name, 0);
}

/* ---- the drain ---- */

static void pass_or_die(shmlog_drain *drain, shmlog_drained *drained)
{
    int error = shmlog_drain_pass(drain, drained);
    CHECK(error == 0, "pass: %s", strerror(error));
    for (uint32_t lane = 0; lane < LANES; lane++) {
        CHECK(!atomic_load_explicit(&segment.lanes[lane].damaged, memory_order_relaxed), "I1: lane %u is damaged", lane);
    }
}

/* A flusher dies between two passes, and the next one goes on where the log ends. */
static void begin_anew(shmlog_drain *drain, int folder)
{
    shmlog_cursor cursors[LANES];
    uint32_t number = drain->log + 1;
    memcpy(cursors, drain->cursors, sizeof cursors);
    shmlog_drain_close(drain);
    CHECK(shmlog_drain_open(drain, &segment, dup(folder), number, NULL) == 0, "out of memory");
    for (uint32_t lane = 0; lane < LANES; lane++) {
        if (cursors[lane].used) {
            shmlog_drain_restore(drain, lane, &cursors[lane]);
        }
    }
    CHECK(shmlog_drain_next_log(drain) == 0, "the next log can't be opened");
}

static void next_log(shmlog_drain *drain, int folder)
{
    uint32_t closed = drain->log;
    if (mix(seed, closed) % 3 == 0) {
        begin_anew(drain, folder);
    } else {
        CHECK(shmlog_drain_next_log(drain) == 0, "the next log can't be opened");
    }
    check_log(folder, closed);
}

static void drain_while(shmlog_drain *drain, int folder, bool (*is_live)(void))
{
    shmlog_drained drained;
    bool live_before;
    do {
        live_before = is_live();
        pass_or_die(drain, &drained);
        if (atomic_load_explicit(&drain->log_bytes, memory_order_relaxed) > LOG_BYTES) {
            next_log(drain, folder);
        }
        if (drained.slots == 0) {
            usleep(300);
        }
    } while (live_before || drained.slots);
}

static void drain_rest(shmlog_drain *drain, int folder)
{
    shmlog_drained drained;
    shmlog_cut_all(drain->segment);
    pass_or_die(drain, &drained);
    CHECK(!shmlog_drain_finalize(drain), "nobody is left");
    CHECK(shmlog_drain_settle(drain) == 0, "settle");
    uint64_t frames = drain->frames;
    CHECK(shmlog_drain_settle(drain) == 0 && drain->frames == frames, "I6: settled twice");
    CHECK(shmlog_drain_sync(drain) == 0, "fsync");
    check_log(folder, drain->log);
}

static void check_books(void)
{
    uint64_t told = 0, dropped = 0, counted = 0, killed = 0;
    for (uint32_t lane = 0; lane < LANES; lane++) {
        told += lane_books[lane].told;
        for (int reason = 0; reason < SHMLOG_REASONS; reason++) {
            counted += atomic_load_explicit(&segment.lanes[lane].dropped[reason], memory_order_relaxed);
        }
    }
    for (uint32_t author = 0; author < authors; author++) {
        uint64_t written = atomic_load_explicit(&accounts[author].written, memory_order_relaxed);
        uint32_t was_killed = atomic_load_explicit(&accounts[author].killed, memory_order_relaxed);
        dropped += atomic_load_explicit(&accounts[author].dropped, memory_order_relaxed);
        killed += was_killed;
        uint64_t most = written + (was_killed ? ROW_MAX : 0);
        CHECK(on_disk[author] >= written && on_disk[author] <= most, "I3: author %u wrote %lu records, %lu are on disk",
              author, (unsigned long)written, (unsigned long)on_disk[author]);
    }
    CHECK(told == counted, "I4: the lanes have counted %lu drops, the log tells %lu", (unsigned long)counted,
          (unsigned long)told);
    CHECK(told >= dropped && told <= dropped + killed * ROW_MAX, "I4: %lu records were dropped, the log tells %lu",
          (unsigned long)dropped, (unsigned long)told);
    printf("%lu records on disk, %lu dropped, %u authors, %lu killed\n", (unsigned long)records_on_disk,
           (unsigned long)told, authors, (unsigned long)killed);
}

/* ---- threads ---- */

static void *live_on(void *none)
{
    for (;;) {
        uint32_t author = atomic_fetch_add_explicit(&next_author, 1, memory_order_relaxed);
        if (author >= authors) {
            break;
        }
        live(author);
    }
    atomic_fetch_sub_explicit(&running, 1, memory_order_release);
    return none;
}

static bool threads_live(void) { return atomic_load_explicit(&running, memory_order_acquire) != 0; }

static void run_threads(shmlog_drain *drain, int folder)
{
    pthread_t threads[AT_ONCE];
    atomic_store_explicit(&running, AT_ONCE, memory_order_relaxed);
    for (int i = 0; i < AT_ONCE; i++) {
        CHECK(pthread_create(&threads[i], NULL, live_on, NULL) == 0, "pthread_create");
    }
    drain_while(drain, folder, threads_live);
    for (int i = 0; i < AT_ONCE; i++) {
        pthread_join(threads[i], NULL);
    }
}

/* ---- processes ---- */

static pid_t child[AT_ONCE];
static uint32_t child_author[AT_ONCE];
static uint64_t rounds;

static void reap(int place, int options)
{
    int status;
    if (child[place] && waitpid(child[place], &status, options) == child[place]) {
        CHECK((WIFEXITED(status) && WEXITSTATUS(status) == 0) || (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL),
              "author %u ended with status %#x", child_author[place], (unsigned)status);
        child[place] = 0;
    }
}

static void be_born(int place)
{
    uint32_t author = atomic_fetch_add_explicit(&next_author, 1, memory_order_relaxed);
    if (author >= authors) {
        return;
    }
    child_author[place] = author;
    child[place] = fork();
    CHECK(child[place] >= 0, "fork: %s", strerror(errno));
    if (child[place] == 0) {
        live(author);
        _exit(0);
    }
}

/* Have AT_ONCE children live, and kill one now and then. False: none is left. */
static bool processes_live(void)
{
    bool any = false;
    rounds++;
    for (int place = 0; place < AT_ONCE; place++) {
        if (child[place] && mix(seed, rounds * AT_ONCE + (uint64_t)place) % 64 == 0) {
            atomic_store_explicit(&accounts[child_author[place]].killed, 1, memory_order_relaxed);
            kill(child[place], SIGKILL);
            reap(place, 0);
        }
        reap(place, WNOHANG);
        if (!child[place]) {
            be_born(place);
        }
        any = any || child[place];
    }
    return any;
}

/* ---- */

int main(int argc, char **argv)
{
    CHECK(argc == 6, "stress FOLDER SEED AUTHORS RECORDS threads|processes");
    seed = strtoull(argv[2], NULL, 10);
    authors = (uint32_t)strtoul(argv[3], NULL, 10);
    records = strtoull(argv[4], NULL, 10);
    snprintf(path, sizeof path, "%s/segment", argv[1]);
    accounts = mmap(NULL, authors * sizeof *accounts, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    on_disk = calloc(authors, sizeof *on_disk);
    CHECK(accounts != MAP_FAILED && on_disk, "out of memory");

    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    int folder = open(argv[1], O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    shmlog_geometry geometry = {
        .lanes = LANES, .lane_slots = SLOTS, .clock = SHMLOG_CLOCK_MONOTONIC, .run_id = "stress", .run_dir = argv[1]};
    CHECK(fd >= 0 && folder >= 0, "%s: %s", path, strerror(errno));
    CHECK(shmlog_segment_create(&segment, fd, &geometry) == 0, "no segment");
    CHECK(shmlog_producer_watch_forks() == 0, "pthread_atfork");

    shmlog_drain drain;
    CHECK(shmlog_drain_open(&drain, &segment, dup(folder), 0, NULL) == 0, "out of memory");
    CHECK(shmlog_drain_next_log(&drain) == 0, "no log");
    if (strcmp(argv[5], "threads") == 0) {
        run_threads(&drain, folder);
    } else {
        drain_while(&drain, folder, processes_live);
    }
    drain_rest(&drain, folder);
    check_books();
    shmlog_drain_close(&drain);
    shmlog_segment_close(&segment);
    close(folder);
    unlink(path);
    munmap(accounts, authors * sizeof *accounts);
    free(on_disk);
    return 0;
}
