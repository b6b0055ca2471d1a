#include "lines.h"

#include <string.h>
#include <time.h>

#define PUT(out, literal) put_bytes((out), (literal), sizeof(literal) - 1)

enum {
    SECOND_BYTES = 20,  /* 2026-11-21T10:00:00. */
    NUMBER_BYTES = 20,  /* of an int64 */
    CALL_BYTES = 128 + SECOND_BYTES + 2 * NUMBER_BYTES /* of a line besides texts */
};

/* ---- what is put ---- */

static char *put_bytes(char *out, const char *text, size_t bytes)
{
    memcpy(out, text, bytes);
    return out + bytes;
}

static char *put_text(char *out, const shmlog_texts *texts, size_t i)
{
    int32_t begin = texts->offsets[i];
    return put_bytes(out, texts->data + begin, (size_t)(texts->offsets[i + 1] - begin));
}

static char *put_number(char *out, int64_t number)
{
    char digits[NUMBER_BYTES];
    uint64_t rest = number < 0 ? 0 - (uint64_t)number : (uint64_t)number;
    size_t at = sizeof digits;
    do {
        digits[--at] = (char)('0' + rest % 10);
        rest /= 10;
    } while (rest);
    if (number < 0) {
        *out++ = '-';
    }
    return put_bytes(out, digits + at, sizeof digits - at);
}

static char *put_digits(char *out, int64_t number, int count)
{
    for (int i = count; i--; number /= 10) {
        out[i] = (char)('0' + number % 10);
    }
    return out + count;
}

/* The second written last: neighbours share it. */
typedef struct {
    int64_t second;
    char text[SECOND_BYTES];
    bool any;
} clock_face;

static void set_clock(clock_face *face, int64_t second)
{
    time_t time = (time_t)second;
    struct tm at = {0};
    char *out = face->text;
    face->second = second;
    face->any = true;
    gmtime_r(&time, &at);
    out = PUT(put_digits(out, at.tm_year + 1900, 4), "-");
    out = PUT(put_digits(out, at.tm_mon + 1, 2), "-");
    out = PUT(put_digits(out, at.tm_mday, 2), "T");
    out = PUT(put_digits(out, at.tm_hour, 2), ":");
    out = PUT(put_digits(out, at.tm_min, 2), ":");
    PUT(put_digits(out, at.tm_sec, 2), ".");
}

static char *put_time(char *out, clock_face *face, int64_t ts_us)
{
    int64_t rest = ts_us % 1000000;
    rest += rest < 0 ? 1000000 : 0;
    int64_t second = (ts_us - rest) / 1000000;
    if (!face->any || face->second != second) {
        set_clock(face, second);
    }
    return put_digits(put_bytes(out, face->text, SECOND_BYTES), rest, 6);
}

/* ---- lines ---- */

static char *put_call(char *out, clock_face *face, const shmlog_line_input *input, size_t call)
{
    size_t row = (size_t)input->first[call], end = (size_t)input->first[call + 1];
    out = PUT(out, "{\"timestamp\":\"");
    out = put_time(out, face, input->ts_us[row]);
    out = PUT(out, "Z\",\"event_type\":\"metrics\",\"data\":{\"step\":");
    out = put_number(out, input->step[row]);
    out = PUT(out, ",\"metrics\":{");
    for (size_t i = row; i < end; i++) {
        if (i > row) {
            *out++ = ',';
        }
        out = put_text(out, &input->names, (size_t)input->name[i]);
        *out++ = ':';
        out = put_text(out, &input->values, i);
    }
    out = PUT(out, "}},");
    out = put_text(out, &input->producers, (size_t)input->producer[row]);
    out = PUT(out, ",\"seq\":");
    out = put_number(out, input->seq[row]);
    return PUT(out, "}\n");
}

size_t shmlog_lines_write(const shmlog_line_input *input, char *out)
{
    const char *begin = out;
    clock_face face = {0};
    for (size_t i = 0; i < input->lines; i++) {
        size_t line = input->order[i];
        out = line < input->calls ? put_call(out, &face, input, line)
                                  : put_text(out, &input->others, line - input->calls);
    }
    return (size_t)(out - begin);
}

/* ---- room ---- */

static size_t text_bytes(const shmlog_texts *texts, size_t i)
{
    return (size_t)(texts->offsets[i + 1] - texts->offsets[i]);
}

/* Of a call; 0 if a number in it is out of range. */
static size_t call_room(const shmlog_line_input *input, size_t call)
{
    int64_t begin = input->first[call], end = input->first[call + 1];
    if (begin < 0 || end <= begin || (uint64_t)end > input->rows ||
        (size_t)(uint32_t)input->producer[begin] >= input->producers.count) {
        return 0;
    }
    size_t room = CALL_BYTES + text_bytes(&input->producers, (size_t)input->producer[begin]);
    for (int64_t row = begin; row < end; row++) {
        if ((size_t)(uint32_t)input->name[row] >= input->names.count) {
            return 0;
        }
        room += 2 + text_bytes(&input->names, (size_t)input->name[row]) + text_bytes(&input->values, (size_t)row);
    }
    return room;
}

size_t shmlog_lines_room(const shmlog_line_input *input)
{
    size_t room = 1;
    for (size_t i = 0; i < input->lines; i++) {
        size_t line = input->order[i];
        if (line >= input->calls + input->others.count) {
            return 0;
        }
        size_t more = line < input->calls ? call_room(input, line) : text_bytes(&input->others, line - input->calls);
        if (more == 0) {
            return 0;
        }
        room += more;
    }
    return room;
}
