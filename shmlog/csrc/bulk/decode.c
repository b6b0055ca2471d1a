#include "decode.h"

#include <string.h>

/* The years 1 to 9999, which is what RFC 3339 and Python can name. */
#define TS_US_MIN INT64_C(-62135596800000000)
#define TS_US_MAX INT64_C(253402300799999999)
#define NS_MAX 0x1p62
#define LATE_US 1000 /* a record may be this much younger than the anchor of its frame */

/* A slot as it stands in a log: nobody else writes to it. */
typedef struct {
    uint64_t ts;
    uint64_t value;
    int64_t step;
    uint64_t commit;
} log_slot;

_Static_assert(sizeof(log_slot) == sizeof(shmlog_slot), "a log holds slots as they are");

/* Where decoding stands in an entry. */
typedef struct {
    shmlog_columns *columns;
    const unsigned char *slots;
    shmlog_log_entry *entry;
    const shmlog_log_clock *clock;
} place;

static log_slot slot_at(const place *at, uint32_t i)
{
    log_slot slot; /* copied: the bytes of a file need not be aligned */
    memcpy(&slot, at->slots + sizeof slot * i, sizeof slot);
    return slot;
}

static int64_t within_years(int64_t us) { return us < TS_US_MIN ? TS_US_MIN : us > TS_US_MAX ? TS_US_MAX : us; }

static int64_t time_us(const shmlog_log_clock *clock, const log_slot *slot)
{
    if (shmlog_commit_flags(slot->commit) & SHMLOG_GIVEN) {
        return within_years((int64_t)slot->ts);
    }
    int64_t ns = (int64_t)(slot->ts - (uint64_t)clock->ticks);
    if (clock->rate != 1.0) {
        double scaled = (double)ns * clock->rate;
        ns = (int64_t)(scaled >= -NS_MAX ? (scaled <= NS_MAX ? scaled : NS_MAX) : -NS_MAX); /* a NaN is below */
    }
    ns = (int64_t)((uint64_t)ns + (uint64_t)clock->utc_ns);
    int64_t us = within_years(ns / 1000 - (ns % 1000 < 0));
    return us > clock->utc_ns / 1000 + LATE_US ? within_years(us + clock->shift_us) : us;
}

/* The row that a record becomes, if its name is known. Its number is used up in any case. */
static bool put_row(const place *at, const log_slot *slot, unsigned kind, size_t *row)
{
    shmlog_columns *columns = at->columns;
    int64_t seq = (int64_t)at->entry->seq++;
    uint32_t id = shmlog_commit_name(slot->commit);
    int32_t name = id < columns->names_count ? columns->names[id] : -1;
    if (name < 0) {
        if (!columns->nameless++) {
            columns->nameless_entry = columns->entry_count;
        }
        return false;
    }
    *row = columns->row_count++;
    columns->step[*row] = slot->step;
    columns->value[*row] = slot->value;
    columns->ts_us[*row] = time_us(at->clock, slot);
    columns->seq[*row] = seq;
    columns->name[*row] = name;
    columns->kind[*row] = (uint8_t)(kind - SHMLOG_FLOAT);
    columns->unit[*row] = columns->unit_count;
    columns->kinds |= 1u << kind;
    return true;
}

static shmlog_log_item *put_item(const place *at, const log_slot *slot, uint32_t i)
{
    shmlog_log_item *item = &at->columns->items[at->columns->item_count++];
    *item = (shmlog_log_item){
        .slot = i,
        .seq = (int64_t)at->entry->seq,
        .ts_us = time_us(at->clock, slot),
        .entry = at->columns->entry_count,
        .tenancy = at->entry->tenancy,
        .bytes = shmlog_extent_count(slot->value),
        .name = shmlog_commit_name(slot->commit),
        .kind = shmlog_commit_kind(slot->commit),
        .is_file = (shmlog_commit_flags(slot->commit) & SHMLOG_FILE) != 0,
    };
    return item;
}

static void put_stretch(const place *at)
{
    shmlog_columns *columns = at->columns;
    columns->stretches[columns->stretch_count++] = (shmlog_log_stretch){
        .row = columns->row_count, .entry = columns->entry_count, .tenancy = at->entry->tenancy};
}

/* Whether `count` DATA slots stand from `i` on. */
static bool are_data(const place *at, uint32_t i, uint32_t count)
{
    if (count > at->entry->slots - i) {
        return false;
    }
    for (uint32_t end = i + count; i < end; i++) {
        uint64_t commit = slot_at(at, i).commit;
        if (shmlog_commit_kind(commit) != SHMLOG_DATA || !(commit & SHMLOG_MEMBER)) {
            return false;
        }
    }
    return true;
}

/* Slots of something that states its size and is followed by that many bytes; 0 if it makes no sense. */
static uint32_t sized(const place *at, const log_slot *slot, uint32_t i)
{
    uint64_t data = ((uint64_t)shmlog_extent_count(slot->value) + SHMLOG_DATA_BYTES - 1) / SHMLOG_DATA_BYTES;
    bool states_it = shmlog_extent_slots(slot->value) == data + 1;
    return states_it && are_data(at, i + 1, (uint32_t)data) ? (uint32_t)data + 1 : 0;
}

/* A record, alone or in a ROW; `flags` are those that it must have, GIVEN and FILE aside. Returns its slots, or 0. */
static uint32_t measure_record(const place *at, const log_slot *slot, uint32_t i, unsigned flags)
{
    unsigned kind = shmlog_commit_kind(slot->commit);
    unsigned has = shmlog_commit_flags(slot->commit) & ~(unsigned)SHMLOG_GIVEN;
    if (kind == SHMLOG_LONGTEXT) {
        return (has & ~(unsigned)SHMLOG_FILE) == flags ? sized(at, slot, i) : 0;
    }
    return kind >= SHMLOG_FLOAT && kind <= SHMLOG_TEXT && has == flags;
}

static void take_record(const place *at, const log_slot *slot, uint32_t i)
{
    unsigned kind = shmlog_commit_kind(slot->commit);
    size_t row;
    if (kind != SHMLOG_LONGTEXT) {
        put_row(at, slot, kind, &row);
    } else if (put_row(at, slot, SHMLOG_TEXT, &row)) {
        shmlog_log_item *item = put_item(at, slot, i);
        item->row = row;
        item->seq--; /* its own, which put_row() has used up */
    }
}

/* Several records that were logged by one call. Returns its slots, or 0. */
static uint32_t measure_row(const place *at, const log_slot *slot, uint32_t i)
{
    uint32_t length = shmlog_extent_slots(slot->value);
    uint32_t records = shmlog_extent_count(slot->value);
    if (shmlog_commit_flags(slot->commit) != 0 || records == 0 || length > at->entry->slots - i) {
        return 0;
    }
    uint32_t next = i + 1;
    while (records && next < i + length) {
        log_slot record = slot_at(at, next);
        uint32_t size = measure_record(at, &record, next, SHMLOG_MEMBER);
        if (size == 0) {
            return 0;
        }
        next += size;
        records--;
    }
    return records == 0 && next == i + length ? length : 0;
}

static void take_row(const place *at, uint32_t i, uint32_t length)
{
    for (uint32_t next = i + 1; next < i + length;) {
        log_slot record = slot_at(at, next);
        take_record(at, &record, next);
        next += shmlog_commit_kind(record.commit) == SHMLOG_LONGTEXT ? shmlog_extent_slots(record.value) : 1;
    }
}

static void read_drops(const place *at, uint32_t i, uint64_t drops[SHMLOG_REASONS])
{
    _Static_assert(sizeof(uint64_t[SHMLOG_REASONS]) == 2 * SHMLOG_DATA_BYTES, "two DATA slots");
    for (uint32_t half = 0; half < 2; half++) {
        log_slot slot = slot_at(at, i + 1 + half);
        memcpy(drops + 3 * half, &slot, SHMLOG_DATA_BYTES);
    }
}

/* Drops so far, by reason. Returns its slots, or 0. */
static uint32_t measure_gap(const place *at, const log_slot *slot, uint32_t i)
{
    uint64_t drops[SHMLOG_REASONS];
    if (shmlog_commit_flags(slot->commit) != 0 || shmlog_extent_slots(slot->value) != SHMLOG_GAP_SLOTS ||
        !are_data(at, i + 1, SHMLOG_GAP_SLOTS - 1)) {
        return 0;
    }
    read_drops(at, i, drops);
    for (int reason = 0; reason < SHMLOG_REASONS; reason++) {
        if (drops[reason] > SHMLOG_COUNT_MAX) {
            return 0;
        }
    }
    return SHMLOG_GAP_SLOTS;
}

static void take_gap(const place *at, const log_slot *slot, uint32_t i)
{
    uint64_t drops[SHMLOG_REASONS];
    shmlog_log_item *item = put_item(at, slot, i);
    read_drops(at, i, drops);
    for (int reason = 0; reason < SHMLOG_REASONS; reason++) {
        uint64_t *gapped = &at->entry->gapped[reason];
        item->dropped[reason] = drops[reason] > *gapped ? drops[reason] - *gapped : 0;
        *gapped += item->dropped[reason];
        at->entry->seq += item->dropped[reason];
    }
}

/* Take the unit that begins at slot `i`. Returns its slots, or 0 if it makes no sense. */
static uint32_t take_unit(const place *at, const log_slot *slot, uint32_t i)
{
    unsigned kind = shmlog_commit_kind(slot->commit);
    unsigned flags = shmlog_commit_flags(slot->commit);
    uint32_t size;
    switch (kind) {
    case SHMLOG_ROW:
        size = measure_row(at, slot, i);
        if (size) {
            take_row(at, i, size);
        }
        return size;
    case SHMLOG_EVENT:
        size = (flags & ~(unsigned)SHMLOG_FILE) == 0 ? sized(at, slot, i) : 0;
        if (size) {
            put_item(at, slot, i);
            at->entry->seq++;
        }
        return size;
    case SHMLOG_OWNER:
        size = flags == 0 ? sized(at, slot, i) : 0;
        if (size) {
            at->entry->tenancy++;
            put_item(at, slot, i);
            at->columns->stretch_count -= i == 0; /* nothing is of the tenancy before */
            put_stretch(at);
        }
        return size;
    case SHMLOG_GAP:
        size = measure_gap(at, slot, i);
        if (size) {
            take_gap(at, slot, i);
        }
        return size;
    default:
        size = measure_record(at, slot, i, 0);
        if (size) {
            take_record(at, slot, i);
        }
        return size;
    }
}

uint32_t shmlog_decode_entry(shmlog_columns *columns, const void *slots, shmlog_log_entry *entry,
                             const shmlog_log_clock *clock)
{
    const place at = {columns, slots, entry, clock};
    uint32_t i = 0;
    if (entry->slots) {
        put_stretch(&at);
    }
    while (i < entry->slots) {
        log_slot slot = slot_at(&at, i);
        uint32_t size = take_unit(&at, &slot, i);
        if (size == 0) {
            break;
        }
        columns->unit_count++;
        i += size;
    }
    entry->position += entry->slots;
    columns->entry_count++;
    return i;
}
