/* Any bytes as the slots of a log: they become columns, and never more than there is room for (I11).
 *
 * Input: a lane entry without its count of slots, a clock, which names are known, then slots. Each column is a
 * block of memory of its own size, for ASan. A second decoder, after docs/format.md and as plain as can be, says
 * what should have come of them.
 */
#include "decode.h"
#include "require.h"

#include <stdlib.h>
#include <string.h>

enum { SLOTS_MAX = 96, NAMES = 8 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

typedef struct {
    uint64_t ts;
    uint64_t value;
    int64_t step;
    uint64_t commit;
} plain_slot;

/* ---- the second decoder ---- */

typedef struct {
    plain_slot slots[SLOTS_MAX];
    uint32_t count;
    uint64_t seq;
    uint32_t tenancy;
    uint64_t gapped[SHMLOG_REASONS];
    uint32_t known; /* bit per name */

    uint32_t row_slot[SLOTS_MAX]; /* of each row, its first slot */
    uint64_t row_seq[SLOTS_MAX];
    uint32_t rows, items, units;
    uint64_t nameless;
} plain;

static unsigned kind_of(const plain *p, uint32_t i) { return (unsigned)(p->slots[i].commit >> 3 & 31); }
static unsigned flags_of(const plain *p, uint32_t i) { return (unsigned)(p->slots[i].commit & 7); }
static uint32_t low(const plain *p, uint32_t i) { return (uint32_t)p->slots[i].value; }
static uint32_t high(const plain *p, uint32_t i) { return (uint32_t)(p->slots[i].value >> 32); }

/* Slots of a header and its bytes, or 0. */
static uint32_t with_bytes(const plain *p, uint32_t i)
{
    uint64_t slots = ((uint64_t)high(p, i) + 23) / 24 + 1;
    if (low(p, i) != slots || i + slots > p->count) {
        return 0;
    }
    for (uint64_t k = 1; k < slots; k++) {
        if (kind_of(p, i + (uint32_t)k) != 31 || !(flags_of(p, i + (uint32_t)k) & 1)) {
            return 0;
        }
    }
    return (uint32_t)slots;
}

static uint32_t record_slots(const plain *p, uint32_t i, unsigned member)
{
    unsigned kind = kind_of(p, i);
    if (kind == 5) {
        return (flags_of(p, i) & ~6u) == member ? with_bytes(p, i) : 0;
    }
    return kind >= 1 && kind <= 4 && (flags_of(p, i) & ~4u) == member ? 1 : 0;
}

static void record(plain *p, uint32_t i)
{
    uint32_t name = (uint32_t)(p->slots[i].commit >> 8 & 0xffffff);
    if (name < NAMES && p->known >> name & 1) {
        p->row_slot[p->rows] = i;
        p->row_seq[p->rows++] = p->seq;
        p->items += kind_of(p, i) == 5;
    } else {
        p->nameless++;
    }
    p->seq++;
}

static uint32_t row(plain *p, uint32_t i)
{
    uint32_t end = i, records = 0;
    if (flags_of(p, i) || low(p, i) > p->count - i || !high(p, i)) {
        return 0;
    }
    for (end = i + 1; records < high(p, i) && end < i + low(p, i); records++) {
        uint32_t slots = record_slots(p, end, 1);
        if (!slots) {
            return 0;
        }
        end += slots;
    }
    if (records != high(p, i) || end != i + low(p, i)) {
        return 0;
    }
    for (end = i + 1; records; records--) {
        record(p, end);
        end += record_slots(p, end, 1);
    }
    return low(p, i);
}

static uint32_t gap(plain *p, uint32_t i)
{
    uint64_t drops[6];
    if (flags_of(p, i) || low(p, i) != 3 || i + 3 > p->count || kind_of(p, i + 1) != 31 || kind_of(p, i + 2) != 31 ||
        !(flags_of(p, i + 1) & 1) || !(flags_of(p, i + 2) & 1)) {
        return 0;
    }
    memcpy(drops, &p->slots[i + 1], 24);
    memcpy(drops + 3, &p->slots[i + 2], 24);
    for (int k = 0; k < 6; k++) {
        if (drops[k] > UINT64_C(1) << 56) {
            return 0;
        }
    }
    for (int k = 0; k < 6; k++) {
        if (drops[k] > p->gapped[k]) {
            p->seq += drops[k] - p->gapped[k];
            p->gapped[k] = drops[k];
        }
    }
    p->items++;
    return 3;
}

static uint32_t unit(plain *p, uint32_t i)
{
    uint32_t slots;
    switch (kind_of(p, i)) {
    case 6:
        return row(p, i);
    case 9:
        return gap(p, i);
    case 7:
        slots = flags_of(p, i) & ~2u ? 0 : with_bytes(p, i);
        p->items += slots != 0;
        p->seq += slots != 0;
        return slots;
    case 8:
        slots = flags_of(p, i) ? 0 : with_bytes(p, i);
        p->items += slots != 0;
        p->tenancy += slots != 0;
        return slots;
    default:
        slots = record_slots(p, i, 0);
        if (slots) {
            record(p, i);
        }
        return slots;
    }
}

static uint32_t decode_plainly(plain *p)
{
    uint32_t i = 0, slots;
    while (i < p->count && (slots = unit(p, i)) != 0) {
        i += slots;
        p->units++;
    }
    return i;
}

/* ---- the comparison ---- */

static void *block(size_t count, size_t bytes)
{
    void *made = malloc(count * bytes + !count);
    REQUIRE(made);
    return made;
}

static void compare(const shmlog_columns *columns, const shmlog_log_entry *entry, const plain *p)
{
    REQUIRE(columns->row_count == p->rows);
    REQUIRE(columns->item_count == p->items);
    REQUIRE((uint32_t)columns->unit_count == p->units);
    REQUIRE(columns->nameless == p->nameless);
    REQUIRE(entry->seq == p->seq && entry->tenancy == p->tenancy);
    REQUIRE(memcmp(entry->gapped, p->gapped, sizeof p->gapped) == 0);
    for (uint32_t i = 0; i < p->rows; i++) {
        const plain_slot *slot = &p->slots[p->row_slot[i]];
        unsigned kind = (unsigned)(slot->commit >> 3 & 31);
        REQUIRE(columns->step[i] == slot->step);
        if (slot->commit & 4) { /* a given time, in microseconds; the years 1 to 9999 */
            int64_t ts = (int64_t)slot->ts, least = INT64_C(-62135596800000000), most = INT64_C(253402300799999999);
            REQUIRE(columns->ts_us[i] == (ts < least ? least : ts > most ? most : ts));
        }
        REQUIRE(columns->value[i] == slot->value);
        REQUIRE(columns->seq[i] == (int64_t)p->row_seq[i]);
        REQUIRE(columns->kind[i] == (kind == 5 ? 4 : kind) - 1);
        REQUIRE((uint32_t)columns->name[i] == (uint32_t)(slot->commit >> 8 & 0xffffff));
    }
    for (size_t i = 0; i < columns->item_count; i++) {
        const shmlog_log_item *item = &columns->items[i];
        REQUIRE(item->slot < p->count);
        REQUIRE(item->kind != 5 || item->row < p->rows);
        REQUIRE(item->kind == 9 || item->slot + 1 + (item->bytes + UINT64_C(23)) / 24 <= p->count);
    }
}

static void use(const uint8_t **data, size_t *size, void *to, size_t bytes)
{
    size_t given = *size < bytes ? *size : bytes;
    memcpy(to, *data, given);
    *data += given;
    *size -= given;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static plain p;
    shmlog_log_entry entry;
    shmlog_log_clock clock = {0, 0, 1.0, 0};
    int32_t names[NAMES];
    uint8_t known = 0;

    memset(&entry, 0, sizeof entry);
    use(&data, &size, &entry, sizeof entry);
    use(&data, &size, &clock, sizeof clock);
    use(&data, &size, &known, sizeof known);
    size_t count = size / sizeof(plain_slot) < SLOTS_MAX ? size / sizeof(plain_slot) : SLOTS_MAX;
    entry.slots = (uint32_t)count;
    for (int32_t i = 0; i < NAMES; i++) {
        names[i] = known >> i & 1 ? i : -1;
    }
    memset(&p, 0, offsetof(plain, row_slot));
    p.rows = p.items = p.units = 0;
    p.nameless = 0;
    memcpy(p.slots, data, count * sizeof(plain_slot));
    p.count = entry.slots;
    p.seq = entry.seq;
    p.tenancy = entry.tenancy;
    p.known = known;
    memcpy(p.gapped, entry.gapped, sizeof p.gapped);

    unsigned char *slots = block(count * sizeof(plain_slot) + 1, 1);
    memcpy(slots + 1, data, count * sizeof(plain_slot)); /* the bytes of a file need not be aligned */
    shmlog_columns columns = {
        .step = block(count, sizeof(int64_t)),  .value = block(count, sizeof(uint64_t)),
        .ts_us = block(count, sizeof(int64_t)), .seq = block(count, sizeof(int64_t)),
        .name = block(count, sizeof(int32_t)),  .kind = block(count, 1),
        .unit = block(count, sizeof(int32_t)),  .items = block(count, sizeof(shmlog_log_item)),
        .stretches = block(count + 1, sizeof(shmlog_log_stretch)),
        .names = names,                         .names_count = NAMES};
    uint32_t taken = shmlog_decode_entry(&columns, slots + 1, &entry, &clock);
    REQUIRE(taken == decode_plainly(&p));
    compare(&columns, &entry, &p);
    void *blocks[] = {slots, columns.step, columns.value, columns.ts_us, columns.seq, columns.name, columns.kind,
                      columns.unit, columns.items, columns.stretches};
    for (size_t i = 0; i < sizeof blocks / sizeof *blocks; i++) {
        free(blocks[i]);
    }
    return 0;
}
