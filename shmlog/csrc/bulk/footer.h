/* The footer of a Parquet file, as far as it says where pages are: several files
 * are read as one when their row groups stand in one footer, moved to where their
 * pages then lie. Its bytes are Thrift's compact protocol; none of them is trusted. */
#ifndef SHMLOG_FOOTER_H
#define SHMLOG_FOOTER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    const unsigned char *data;
    size_t size;
} shmlog_footer;

/* Where parts of a footer are. */
typedef struct {
    size_t schema_end; /* before it: version and schema */
    size_t groups;     /* the first row group's description */
    uint64_t count;    /* of row groups; there may be fewer */
} shmlog_footer_parts;

/* A row group. Places are in the footer, pages in the file. */
typedef struct {
    size_t begin, end;
    int64_t rows;
    int64_t pages_begin, pages_end;
    size_t low, low_size, high, high_size; /* bounds of a column */
    bool has_low, has_high;
} shmlog_row_group;

/* Find the parts of a footer. False if they are not there, or not in the usual order. */
bool shmlog_footer_find(const shmlog_footer *footer, shmlog_footer_parts *parts);

/* Look at the row group whose description begins at `at`, and at the bounds of a
 * column. False if it makes no sense. */
bool shmlog_footer_group(const shmlog_footer *footer, size_t at, uint64_t column, shmlog_row_group *group);

/* Write that description for pages that lie `by` bytes further on, unless `out` is
 * NULL. Returns its bytes; 0 if it makes no sense. */
size_t shmlog_footer_move(const shmlog_footer *footer, size_t at, int64_t by, unsigned char *out);

#endif
