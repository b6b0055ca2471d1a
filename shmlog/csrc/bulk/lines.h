/* Lines of events.jsonl: one for each call that logged metrics, other events between them. */
#ifndef SHMLOG_LINES_H
#define SHMLOG_LINES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Texts one after the other, as in Arrow: text i is data[offsets[i] ... offsets[i + 1]). */
typedef struct {
    const int32_t *offsets;
    const char *data;
    size_t count;
} shmlog_texts;

typedef struct {
    const uint32_t *order; /* of the lines: below `calls` a call, from there on one of `others` */
    size_t lines;
    const int64_t *first; /* of each call its first row; behind the last one the number of rows */
    size_t calls;
    size_t rows;
    const int64_t *ts_us, *step, *seq; /* of each row */
    const int32_t *name;               /* position in `names` */
    const int32_t *producer;           /* position in `producers` */
    shmlog_texts values;               /* of each row, as JSON */
    shmlog_texts names;                /* as JSON */
    shmlog_texts producers;            /* members of the object */
    shmlog_texts others;               /* whole lines */
} shmlog_line_input;

/* Room that the lines need, at most; 0 if a number in the input is out of range. */
size_t shmlog_lines_room(const shmlog_line_input *input);

/* Write the lines of an input for which there is room. Returns their bytes. */
size_t shmlog_lines_write(const shmlog_line_input *input, char *out);

#endif
