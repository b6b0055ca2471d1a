#include "names.h"

#include <string.h>

/* FNV-1a, started from the run's seed, so that names made to collide in one
 * run don't in the next. Source: Fowler, Noll, Vo, IETF draft-eastlake-fnv. */
static uint64_t hash(uint64_t seed, const char *text, uint32_t bytes)
{
    uint64_t value = UINT64_C(0xcbf29ce484222325) ^ seed;
    for (uint32_t i = 0; i < bytes; i++) {
        value = (value ^ (unsigned char)text[i]) * UINT64_C(0x100000001b3);
    }
    return value ^ value >> 32;
}

bool shmlog_name_text(const shmlog_name_table *names, uint32_t id, const char **text, uint32_t *bytes)
{
    if (id >= SHMLOG_NAMES_MAX) {
        return false;
    }
    shmlog_name_entry entry = names->entries[id];
    if (entry.bytes == 0 || entry.bytes > SHMLOG_NAME_BYTES_MAX ||
        entry.offset > SHMLOG_NAME_TEXT_BYTES - entry.bytes) {
        return false;
    }
    *text = names->text + entry.offset;
    *bytes = entry.bytes;
    return true;
}

static bool is_name(const shmlog_name_table *names, uint32_t id, const char *text, uint32_t bytes)
{
    const char *found;
    uint32_t found_bytes;
    return shmlog_name_text(names, id, &found, &found_bytes) && found_bytes == bytes &&
           memcmp(found, text, bytes) == 0;
}

/* Add `amount` unless the sum would pass `limit`. Returns the old value, or UINT32_MAX. */
static uint32_t take(_Atomic uint32_t *counter, uint32_t amount, uint32_t limit)
{
    /* relaxed: what is taken is ours alone; the index publishes it. */
    uint32_t old = atomic_load_explicit(counter, memory_order_relaxed);
    do {
        if (old > limit - amount) {
            return UINT32_MAX;
        }
        /* relaxed: as above. */
    } while (!atomic_compare_exchange_weak_explicit(counter, &old, old + amount, memory_order_relaxed,
                                                    memory_order_relaxed));
    return old;
}

static uint32_t append(shmlog_name_table *names, const char *text, uint32_t bytes)
{
    uint32_t offset = take(&names->text_bytes, bytes, SHMLOG_NAME_TEXT_BYTES);
    uint32_t id = offset == UINT32_MAX ? UINT32_MAX : take(&names->count, 1, SHMLOG_NAMES_MAX);
    if (id == UINT32_MAX) {
        return SHMLOG_NO_NAME;
    }
    memcpy(names->text + offset, text, bytes);
    names->entries[id].offset = offset;
    names->entries[id].bytes = bytes;
    return id;
}

uint32_t shmlog_name_intern(shmlog_name_table *names, uint64_t seed, const char *text, uint32_t bytes)
{
    uint32_t place = (uint32_t)(hash(seed, text, bytes) % SHMLOG_NAME_INDEX);
    uint32_t ours = SHMLOG_NO_NAME;

    for (uint32_t probes = 0; probes < SHMLOG_NAME_INDEX; probes++) {
        /* NAME, acquire side: the entry behind a non-zero index is complete. */
        uint32_t found = atomic_load_explicit(&names->index[place], memory_order_acquire);
        if (found == 0) {
            if (ours == SHMLOG_NO_NAME) {
                ours = append(names, text, bytes);
                if (ours == SHMLOG_NO_NAME) {
                    return SHMLOG_NO_NAME;
                }
            }
            /* NAME, release side; and acquire side when another process was
             * faster, whose entry is looked at below. */
            if (atomic_compare_exchange_strong_explicit(&names->index[place], &found, ours + 1,
                                                        memory_order_acq_rel, memory_order_acquire)) {
                return ours;
            }
        }
        if (is_name(names, found - 1, text, bytes)) {
            return found - 1;
        }
        place = (place + 1) % SHMLOG_NAME_INDEX;
    }
    return SHMLOG_NO_NAME;
}
