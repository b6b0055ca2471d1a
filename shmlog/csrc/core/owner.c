#include "owner.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "clock.h"

enum {
    TEXT_BYTES_MAX = 80, /* of host and process: the whole must fit, escapes included */
    RANK_DIGITS_MAX = 9
};

static const char *const rank_names[] = {"SHMLOG_RANK",          "RANK",     "SLURM_PROCID",
                                         "OMPI_COMM_WORLD_RANK", "PMI_RANK", NULL};
static const char *const local_rank_names[] = {"LOCAL_RANK", "SLURM_LOCALID", "OMPI_COMM_WORLD_LOCAL_RANK", NULL};

/* The first of some variables that is a number. */
static int64_t from_environment(const char *const *names)
{
    for (; *names; names++) {
        const char *text = getenv(*names);
        size_t length = text ? strlen(text) : 0;
        if (length && length <= RANK_DIGITS_MAX && strspn(text, "0123456789") == length) {
            return strtoll(text, NULL, 10);
        }
    }
    return SHMLOG_UNKNOWN;
}

/* An object under construction. */
typedef struct {
    char *out;
    uint32_t bytes;
} object_text;

static void put(object_text *json, const char *text)
{
    size_t length = strlen(text);
    memcpy(json->out + json->bytes, text, length);
    json->bytes += (uint32_t)length;
}

static void put_number(object_text *json, const char *key, int64_t number)
{
    char text[64];
    if (number == SHMLOG_UNKNOWN) {
        snprintf(text, sizeof text, "\"%s\":null,", key);
    } else {
        snprintf(text, sizeof text, "\"%s\":%" PRId64 ",", key, number);
    }
    put(json, text);
}

static void put_text(object_text *json, const char *key, const char *text)
{
    size_t length = strnlen(text, TEXT_BYTES_MAX);
    while (length < strlen(text) && length && ((unsigned char)text[length] & 0xc0u) == 0x80u) {
        length--; /* not in the middle of a character */
    }
    put(json, "\"");
    put(json, key);
    put(json, "\":\"");
    for (size_t i = 0; i < length; i++) {
        unsigned char byte = (unsigned char)text[i];
        if (byte < 0x20 || byte == 0x7f) {
            json->out[json->bytes++] = ' ';
        } else {
            if (byte == '"' || byte == '\\') {
                json->out[json->bytes++] = '\\';
            }
            json->out[json->bytes++] = (char)byte;
        }
    }
    put(json, "\",");
}

uint32_t shmlog_owner_write(const shmlog_owner *owner, char out[SHMLOG_OWNER_BYTES_MAX])
{
    object_text json = {out, 0};
    struct utsname host;
    put(&json, "{");
    put_number(&json, "pid", getpid());
    put_number(&json, "rank", owner->rank == SHMLOG_UNKNOWN ? from_environment(rank_names) : owner->rank);
    put_number(&json, "local_rank",
               owner->local_rank == SHMLOG_UNKNOWN ? from_environment(local_rank_names) : owner->local_rank);
    put_number(&json, "worker", owner->worker);
    put_text(&json, "host", uname(&host) == 0 ? host.nodename : "?");
    put_text(&json, "process", owner->process);
    put_number(&json, "started_ns", shmlog_clock_ns(CLOCK_REALTIME));
    out[json.bytes - 1] = '}'; /* the last comma */
    return json.bytes;
}

/* Keys and punctuation, five numbers, two texts that are escapes alone. */
_Static_assert(80 + 5 * 20 + 2 * 2 * TEXT_BYTES_MAX <= SHMLOG_OWNER_BYTES_MAX, "an owner record");
