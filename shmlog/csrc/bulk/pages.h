/* Whether the pages of a Parquet file of ours are those that were written. */
#ifndef SHMLOG_PAGES_H
#define SHMLOG_PAGES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { SHMLOG_PAGE_HEADER_MAX = 64 };

/* What the header of a page says; pages have a checksum, but headers have none. */
typedef struct {
    bool is_dictionary;
    uint32_t crc;
    size_t packed_bytes, plain_bytes;
    int64_t values;
    unsigned encoding; /* as parquet.thrift numbers them */
} shmlog_page;

/* Read the header at the start of `data`. Returns its bytes; 0 unless it is one that our parts have: every field that
 * matters, each once, in order. */
size_t shmlog_page_read(const unsigned char *data, size_t size, shmlog_page *page);

/* Whether `packed`, by Snappy, is `count` texts of `bytes` bytes in all, each behind its length. Needs so much room. */
bool shmlog_page_has_texts(const unsigned char *packed, size_t size, unsigned char *room, size_t bytes, int64_t count);

/* What the footer says of a row group. */
typedef struct {
    int64_t begin; /* of its first page */
    int64_t rows;
    int64_t bytes; /* of its pages unpacked, headers included */
} shmlog_page_group;

typedef struct {
    const shmlog_page_group *groups;
    size_t group_count;
    const unsigned char *encodings; /* of each column; with SHMLOG_PAGE_TEXTS if its dictionary is of texts */
    size_t columns;
} shmlog_page_layout;

enum { SHMLOG_PAGE_TEXTS = 0x80 };

typedef enum { SHMLOG_PAGES_SOUND, SHMLOG_PAGES_DAMAGED, SHMLOG_PAGES_UNREADABLE } shmlog_pages;

/* Compare the pages of some row groups, of which each has its own one after the other, with their checksums, and their
 * headers with the footer. `place` is where the page begins that is damaged. Of UNREADABLE, errno tells why. */
shmlog_pages shmlog_pages_check(int fd, const shmlog_page_layout *layout, uint64_t *place);

#endif
