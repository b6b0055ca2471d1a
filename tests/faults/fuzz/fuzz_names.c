/* Any bytes as a name table: names are looked up and put into it (I11).
 *
 * Input: counters, some entries, and what the index holds where the names of this harness are looked for first.
 */
#include "names.c"
#include "require.h"

#include <stdlib.h>

enum { NAMES = 4, PROBES = 8, ENTRIES = 16 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static shmlog_name_table *names;
static const char *const texts[NAMES] = {"loss", "acc", "a", "a name that is longer than most are"};

static void use(const uint8_t **data, size_t *size, void *to, size_t bytes)
{
    size_t given = *size < bytes ? *size : bytes;
    memcpy(to, *data, given);
    *data += given;
    *size -= given;
}

static uint32_t places[NAMES]; /* where each is looked for first */

/* What the last input can have changed. */
static void reset(void)
{
    for (uint32_t i = 0; i < NAMES; i++) {
        for (uint32_t probe = 0; probe < PROBES + NAMES; probe++) {
            names->index[(places[i] + probe) % SHMLOG_NAME_INDEX] = 0;
        }
    }
    uint32_t count = names->count < SHMLOG_NAMES_MAX ? names->count : SHMLOG_NAMES_MAX;
    for (uint32_t id = count < NAMES ? 0 : count - NAMES; id < count; id++) {
        names->entries[id] = (shmlog_name_entry){0, 0};
    }
    memset(names->entries, 0, ENTRIES * sizeof *names->entries);
    names->count = 0;
    names->text_bytes = 0;
}

static void look_up(uint32_t i)
{
    uint32_t bytes = (uint32_t)strlen(texts[i]), found;
    const char *text;
    for (int again = 0; again < 2; again++) { /* not the same id: a new text may lie where an old entry points */
        uint32_t id = shmlog_name_intern(names, 7, texts[i], bytes);
        if (id != SHMLOG_NO_NAME) {
            REQUIRE(shmlog_name_text(names, id, &text, &found));
            REQUIRE(found == bytes && memcmp(text, texts[i], bytes) == 0);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (!names) {
        names = calloc(1, sizeof *names);
        REQUIRE(names);
        memcpy(names->text, "lossacca", 8);
        for (uint32_t i = 0; i < NAMES; i++) {
            places[i] = (uint32_t)(hash(7, texts[i], (uint32_t)strlen(texts[i])) % SHMLOG_NAME_INDEX);
        }
    }
    uint32_t counters[2] = {0, 0};
    use(&data, &size, counters, sizeof counters);
    use(&data, &size, names->entries, ENTRIES * sizeof *names->entries);
    names->count = counters[0];
    names->text_bytes = counters[1];
    for (uint32_t i = 0; i < NAMES; i++) {
        for (uint32_t probe = 0; probe < PROBES; probe++) {
            uint32_t id = 0;
            use(&data, &size, &id, sizeof id);
            names->index[(places[i] + probe) % SHMLOG_NAME_INDEX] = id;
        }
    }
    for (uint32_t i = 0; i < NAMES; i++) {
        look_up(i);
    }
    reset();
    return 0;
}
