#include "lane.h"

#include <string.h>

shmlog_lane_header shmlog_no_lane;

static void write_data(const shmlog_lane *lane, uint64_t position, const unsigned char *bytes, uint32_t count)
{
    uint64_t words[3] = {0, 0, 0};
    memcpy(words, bytes, count);
    shmlog_lane_commit(lane, position, words[0], words[1], (int64_t)words[2], 0, SHMLOG_DATA, SHMLOG_MEMBER);
}

uint32_t shmlog_lane_write_bytes(const shmlog_lane *lane, uint64_t position, const shmlog_unit_head *head,
                                 const void *bytes, uint32_t count)
{
    uint32_t data = shmlog_data_slots(count);
    const unsigned char *next = bytes;

    for (uint32_t i = data; i > 0; i--) {
        uint32_t offset = (i - 1) * SHMLOG_DATA_BYTES;
        uint32_t left = count - offset;
        write_data(lane, position + i, next + offset, left < SHMLOG_DATA_BYTES ? left : SHMLOG_DATA_BYTES);
    }
    shmlog_lane_commit(lane, position, head->ts, shmlog_extent(data + 1, count), head->step, head->name_id,
                       head->kind, head->flags);
    return data + 1;
}

static uint32_t write_value(const shmlog_lane *lane, uint64_t position, uint64_t ts, int64_t step,
                            const shmlog_value *value, unsigned member)
{
    ts = shmlog_value_ts(value, ts);
    if (value->kind == SHMLOG_LONGTEXT) {
        shmlog_unit_head head = {ts, step, value->name_id, value->kind, value->flags | member};
        return shmlog_lane_write_bytes(lane, position, &head, value->bytes, value->count);
    }
    shmlog_lane_commit(lane, position, ts, value->bits, step, value->name_id, value->kind, value->flags | member);
    return 1;
}

void shmlog_lane_write_row(const shmlog_lane *lane, uint64_t position, uint64_t ts, int64_t step,
                           const shmlog_value *values, uint32_t count, uint32_t slots)
{
    uint64_t end = position + slots;
    for (uint32_t i = count; i > 0; i--) {
        end -= shmlog_value_slots(&values[i - 1]);
        write_value(lane, end, ts, step, &values[i - 1], SHMLOG_MEMBER);
    }
    shmlog_lane_commit(lane, position, ts, shmlog_extent(slots, count), step, 0, SHMLOG_ROW, 0);
}

void shmlog_lane_put_value(shmlog_lane *lane, uint64_t ts, int64_t step, const shmlog_value *value)
{
    shmlog_lane_advance(lane, write_value(lane, lane->head, ts, step, value, 0));
}

static bool is_lap(const shmlog_lane *lane, uint64_t position, uint64_t commit)
{
    return commit >> 32 == (uint32_t)((position >> lane->shift) + 1);
}

/* How many slots the header says, or 0 if it says nothing sensible. */
static uint32_t claimed_slots(const shmlog_unit *unit, uint32_t unit_max)
{
    uint32_t slots = shmlog_extent_slots(unit->value);
    uint32_t count = shmlog_extent_count(unit->value);

    switch (unit->kind) {
    case SHMLOG_FLOAT:
    case SHMLOG_INT:
    case SHMLOG_BOOL:
    case SHMLOG_TEXT:
        return 1;
    case SHMLOG_LONGTEXT:
    case SHMLOG_EVENT:
        return slots == shmlog_data_slots(count) + 1 && slots <= unit_max ? slots : 0;
    case SHMLOG_OWNER:
        return slots == shmlog_data_slots(count) + 1 && count <= SHMLOG_OWNER_BYTES_MAX && !unit->flags ? slots : 0;
    case SHMLOG_GAP:
        return slots == SHMLOG_GAP_SLOTS && !unit->flags ? slots : 0;
    case SHMLOG_ROW:
        return count >= 1 && slots > count && slots <= unit_max ? slots : 0;
    default:
        return 0;
    }
}

static bool members_are_whole(const shmlog_lane *lane, uint64_t position, uint32_t slots)
{
    for (uint32_t i = 1; i < slots; i++) {
        /* COMMIT, acquire side; the header's would be enough, since it is
         * committed after its members. */
        uint64_t commit =
            atomic_load_explicit(&shmlog_slot_at(lane, position + i)->commit, memory_order_acquire);
        if (!is_lap(lane, position + i, commit) || !(commit & SHMLOG_MEMBER)) {
            return false;
        }
    }
    return true;
}

shmlog_unit_state shmlog_lane_peek(const shmlog_lane *lane, uint64_t position, uint32_t room, shmlog_unit *unit)
{
    const shmlog_slot *slot = shmlog_slot_at(lane, position);
    /* COMMIT, acquire side: a word of this lap shows the whole slot. */
    uint64_t commit = atomic_load_explicit(&slot->commit, memory_order_acquire);

    if (room == 0 || !is_lap(lane, position, commit) || (commit & SHMLOG_MEMBER)) {
        return SHMLOG_UNIT_NONE;
    }
    unit->kind = shmlog_commit_kind(commit);
    unit->flags = shmlog_commit_flags(commit);
    unit->name_id = shmlog_commit_name(commit);
    unit->value = slot->value;
    unit->slots = claimed_slots(unit, shmlog_unit_max(shmlog_lane_capacity(lane)));
    if (unit->slots == 0 || unit->slots > room || !members_are_whole(lane, position, unit->slots)) {
        return SHMLOG_UNIT_DAMAGED;
    }
    return SHMLOG_UNIT_WHOLE;
}

uint64_t shmlog_lane_first_uncommitted(const shmlog_lane *lane, uint64_t from)
{
    uint64_t end = from + shmlog_lane_capacity(lane);
    uint64_t position = from;
    shmlog_unit unit;

    while (shmlog_lane_peek(lane, position, (uint32_t)(end - position), &unit) == SHMLOG_UNIT_WHOLE) {
        position += unit.slots;
    }
    return position;
}
