/* Any bytes as a segment: its header is checked, its lanes are drained to a log, its names looked up (I11).
 *
 * Input: a byte of flags, then the pieces named in `use` below as far as it reaches; what is not given is as in
 * a segment in order. The header is scribbled on after it was opened, too. What the drain writes is held against its own counters and checksum, and decoded.
 */
#include "decode.h"
#include "drain.c"
#include "frame.c"
#include "segment.c"

#include "require.h"

enum { LANES = 2, SLOTS = 64, ENTRIES = 8 };
enum { FLAG_HEADER = 1, FLAG_LAPS = 2, FLAG_SETTLE = 4, FLAG_FIRST = 0xf8 }; /* FIRST: all its bits, since it is slow */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static shmlog_segment segment;
static shmlog_header good_header;
static shmlog_drain drain;
static uint32_t frames;

/* ---- what the drain writes, instead of to a file ---- */

ssize_t fuzz_writev(int fd, const struct iovec *pieces, int count);
int fuzz_fsync(int fd);

int fuzz_fsync(int fd) { return fd == 0 ? 0 : -1; }

static uint32_t read_u32(const void *at)
{
    uint32_t value;
    memcpy(&value, at, sizeof value);
    return value;
}

/* The slots of an entry as the readers take them: into columns of just the room they need. */
static void decode(const unsigned char *bytes, const unsigned char *slots)
{
    static const int32_t names[ENTRIES] = {0, 1, 2, 3, 4, 5, 6, 7};
    static int64_t step[SLOTS], ts[SLOTS], seq[SLOTS];
    static uint64_t value[SLOTS];
    static int32_t name[SLOTS], unit[SLOTS];
    static uint8_t kind[SLOTS];
    static shmlog_log_item items[SLOTS];
    static shmlog_log_stretch stretches[SLOTS + 1];
    shmlog_columns columns = {.step = step, .value = value, .ts_us = ts, .seq = seq, .name = name, .kind = kind,
                              .unit = unit, .items = items, .stretches = stretches, .names = names,
                              .names_count = ENTRIES};
    shmlog_log_clock clock = {0, 0, 1.0, 0};
    shmlog_log_entry entry;

    memcpy(&entry, bytes, sizeof entry);
    REQUIRE(entry.lane < LANES && entry.slots <= SLOTS);
    uint64_t position = entry.position;
    for (uint32_t i = 0; i < entry.slots; i++) {
        uint64_t commit;
        memcpy(&commit, slots + sizeof(shmlog_slot) * i + offsetof(shmlog_slot, commit), sizeof commit);
        REQUIRE(commit >> 32 == (uint32_t)((position + i) / SLOTS + 1)); /* I1 */
    }
    if (entry.slots && shmlog_decode_entry(&columns, slots, &entry, &clock) == entry.slots) {
        /* It says what the drain has understood. */
        const shmlog_cursor *cursor = &drain.staged[entry.lane];
        REQUIRE(entry.position == cursor->position);
        REQUIRE(entry.seq == cursor->seq);
        REQUIRE(entry.tenancy == cursor->tenancy);
        REQUIRE(memcmp(entry.gapped, cursor->gapped, sizeof entry.gapped) == 0);
        REQUIRE(columns.nameless == 0); /* I5 */
    }
}

ssize_t fuzz_writev(int fd, const struct iovec *pieces, int count)
{
    REQUIRE(fd == 0 && count == 5 && pieces[0].iov_len == FIXED_BYTES);
    const unsigned char *header = pieces[0].iov_base;
    const unsigned char *entries = pieces[1].iov_base, *slots = pieces[4].iov_base;
    uint32_t crc = shmlog_crc32(0, header + 8, FIXED_BYTES - 8);
    size_t length = FIXED_BYTES;
    for (int i = 1; i < count; i++) {
        crc = shmlog_crc32(crc, pieces[i].iov_base, pieces[i].iov_len);
        length += pieces[i].iov_len;
    }
    REQUIRE(read_u32(header + 4) == crc && read_u32(header + 8) == length);
    REQUIRE(pieces[1].iov_len == (size_t)SHMLOG_FRAME_ENTRY_BYTES * read_u32(header + 24));
    for (uint32_t i = 0; i < read_u32(header + 24); i++) {
        decode(entries + (size_t)SHMLOG_FRAME_ENTRY_BYTES * i, slots);
        slots += sizeof(shmlog_slot) * read_u32(entries + (size_t)SHMLOG_FRAME_ENTRY_BYTES * i + 4);
    }
    REQUIRE(slots == (const unsigned char *)pieces[4].iov_base + pieces[4].iov_len);
    frames++;
    return (ssize_t)length;
}

/* ---- the segment ---- */

static void make_segment(void)
{
    shmlog_geometry geometry = {
        .lanes = LANES, .lane_slots = SLOTS, .clock = SHMLOG_CLOCK_MONOTONIC, .run_id = "fuzz", .run_dir = "/nowhere"};
    segment.bytes = total_bytes(LANES, SLOTS);
    segment.base = aligned_alloc(SHMLOG_PAGE, segment.bytes); /* so that ASan guards its end */
    REQUIRE(segment.base);
    memset(segment.base, 0, segment.bytes);
    segment.header = (shmlog_header *)(void *)segment.base;
    write_header(&segment, &geometry);
    good_header = *segment.header;
    REQUIRE(shmlog_drain_open(&drain, &segment, -1, 0, NULL) == 0);
    drain.fd = 0;
}

static void use(const uint8_t **data, size_t *size, void *to, size_t bytes)
{
    size_t given = *size < bytes ? *size : bytes;
    memcpy(to, *data, given);
    *data += given;
    *size -= given;
}

static void reset(void)
{
    *segment.header = good_header;
    for (uint32_t i = 0; i < ENTRIES; i++) {
        segment.names->entries[i] = (shmlog_name_entry){i * 4, 4};
    }
    for (uint32_t number = 0; number < LANES; number++) {
        memset(&segment.lanes[number], 0, sizeof segment.lanes[number]);
        segment.lanes[number].allotted = 1;
    }
    memset(shmlog_segment_slots(&segment, 0), 0, LANES * SLOTS * sizeof(shmlog_slot));
    memset(drain.cursors, 0, LANES * sizeof *drain.cursors);
    memset(drain.staged, 0, LANES * sizeof *drain.staged);
    memset(drain.names_seen, 0, SHMLOG_FRAME_NAME_BITMAP);
    drain.next_lane = 0;
    drain.first = false;
}

static void fill(const uint8_t *data, size_t size, unsigned flags)
{
    for (uint32_t number = 0; number < LANES; number++) {
        shmlog_lane_header *lane = &segment.lanes[number];
        shmlog_cursor cursor;
        memset(&cursor, 0, sizeof cursor);
        use(&data, &size, &cursor.position, sizeof cursor.position);
        use(&data, &size, &lane->head, sizeof lane->head);
        use(&data, &size, lane->dropped, sizeof lane->dropped);
        use(&data, &size, lane->told, sizeof lane->told);
        use(&data, &size, &lane->final, sizeof lane->final);
        use(&data, &size, &lane->cut, sizeof lane->cut);
        shmlog_drain_restore(&drain, number, &cursor);
    }
    use(&data, &size, segment.names->entries, ENTRIES * sizeof *segment.names->entries);
    use(&data, &size, shmlog_segment_slots(&segment, 0), LANES * SLOTS * sizeof(shmlog_slot));
    for (uint32_t number = 0; number < LANES && flags & FLAG_LAPS; number++) {
        shmlog_lane lane;
        shmlog_segment_view_lane(&segment, number, &lane);
        for (uint64_t i = 0; i < SLOTS; i++) { /* as if committed, each in its lap */
            uint64_t position = drain.cursors[number].position + i;
            shmlog_slot *slot = shmlog_slot_at(&lane, position);
            slot->commit = (uint32_t)slot->commit | (position / SLOTS + 1) << 32;
        }
    }
}

static void drain_it(unsigned flags)
{
    shmlog_drained drained;
    drain.first = (flags & FLAG_FIRST) == FLAG_FIRST;
    for (int i = 0; i < 2; i++) {
        REQUIRE(shmlog_drain_pass(&drain, &drained) == 0);
        REQUIRE(drained.slots <= LANES * SLOTS);
    }
    REQUIRE(drained.slots == 0); /* what was there was taken at once */
    if (flags & FLAG_SETTLE) {
        (void)shmlog_drain_finalize(&drain);
        REQUIRE(shmlog_drain_settle(&drain) == 0);
        (void)shmlog_drain_sync(&drain);
    }
}

static void look_at(void)
{
    const char *text;
    uint32_t bytes;
    for (uint32_t number = 0; number < LANES; number++) {
        shmlog_lane lane;
        shmlog_segment_view_lane(&segment, number, &lane);
        uint64_t from = segment.lanes[number].tail;
        REQUIRE(shmlog_lane_first_uncommitted(&lane, from) - from <= SLOTS);
    }
    for (uint32_t id = 0; id < ENTRIES; id++) {
        if (shmlog_name_text(segment.names, id, &text, &bytes)) {
            REQUIRE(text >= segment.names->text && bytes <= SHMLOG_NAME_BYTES_MAX);
            REQUIRE(text + bytes <= segment.names->text + SHMLOG_NAME_TEXT_BYTES);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!segment.base) {
        make_segment();
    }
    if (size == 0) {
        return 0;
    }
    unsigned flags = *data++;
    size--;
    reset();
    if (flags & FLAG_HEADER) {
        shmlog_constants constants = segment.constants;
        use(&data, &size, &constants, sizeof constants);
        if (check_constants(&constants, constants.segment_bytes) == 0) {
            /* A header that is taken describes a segment of just the size that it says. */
            REQUIRE(constants.slots_offset + (uint64_t)constants.lanes * constants.lane_slots * sizeof(shmlog_slot) ==
                    constants.segment_bytes);
        }
        segment.header->constants = constants; /* those of the one that is open are what they were */
    }
    fill(data, size, flags);
    drain_it(flags);
    look_at();
    return 0;
}
