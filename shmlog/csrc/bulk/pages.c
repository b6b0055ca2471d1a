#include "pages.h"

#include "../core/crc32.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { BUFFER_BYTES = 1 << 18, TEXTS_BYTES_MAX = 1 << 29, TEXT_BYTES_MAX = 1024 + 4 };

/* As parquet.thrift numbers them. */
enum { DATA_PAGE = 0, DICTIONARY_PAGE = 2 };
enum { PLAIN = 0, RLE = 3, RLE_DICTIONARY = 8 };

/* Bytes of Thrift's compact protocol: the step from the field before, and the type. */
enum {
    STOP = 0x00,
    NEXT_I32 = 0x15,
    NEXT_TRUE = 0x11,
    NEXT_FALSE = 0x12,
    DATA_HEADER = 0x1c,      /* field 5 behind field 4: a struct */
    DICTIONARY_HEADER = 0x3c /* field 7 behind field 4: a struct */
};

/* A larger dictionary has no further values; those behind stand as they are. The limit of writers is twice that. */
enum { DICTIONARY_FULL_BYTES = 1 << 19 };

/* ---- headers ---- */

typedef struct {
    const unsigned char *data;
    size_t at, size;
    bool bad;
} reader;

static unsigned take_byte(reader *in)
{
    if (in->at >= in->size) {
        in->bad = true;
        return STOP;
    }
    return in->data[in->at++];
}

static void expect(reader *in, unsigned byte) { in->bad |= take_byte(in) != byte; }

/* The next field, which is a number of 32 bits. */
static int64_t take_number(reader *in)
{
    uint64_t raw = 0;
    unsigned byte = 0x80;
    expect(in, NEXT_I32);
    for (unsigned shift = 0; shift < 35 && byte & 0x80; shift += 7) {
        byte = take_byte(in);
        raw |= (uint64_t)(byte & 0x7f) << shift;
    }
    in->bad |= raw > UINT32_MAX || byte & 0x80;
    return (int64_t)(raw >> 1 ^ (0 - (raw & 1)));
}

/* The next field, which is a number that is not negative. */
static uint32_t take_count(reader *in)
{
    int64_t number = take_number(in);
    in->bad |= number < 0;
    return (uint32_t)number;
}

static void take_data_header(reader *in, shmlog_page *page)
{
    expect(in, DATA_HEADER);
    page->values = take_count(in);
    page->encoding = take_count(in);
    in->bad |= take_count(in) != RLE; /* of definition levels */
    in->bad |= take_count(in) != RLE; /* of repetition levels */
    in->bad |= page->values == 0;
}

static void take_dictionary_header(reader *in, shmlog_page *page)
{
    expect(in, DICTIONARY_HEADER);
    page->values = take_count(in);
    page->encoding = take_count(in);
    unsigned is_sorted = take_byte(in);
    in->bad |= is_sorted != NEXT_TRUE && is_sorted != NEXT_FALSE;
    in->bad |= page->encoding != PLAIN;
}

size_t shmlog_page_read(const unsigned char *data, size_t size, shmlog_page *page)
{
    reader in = {.data = data, .size = size};
    uint32_t type = take_count(&in);
    page->is_dictionary = type == DICTIONARY_PAGE;
    in.bad |= !page->is_dictionary && type != DATA_PAGE;
    page->plain_bytes = take_count(&in);
    page->packed_bytes = take_count(&in);
    page->crc = (uint32_t)take_number(&in);
    if (page->is_dictionary) {
        take_dictionary_header(&in, page);
    } else {
        take_data_header(&in, page);
    }
    expect(&in, STOP);
    expect(&in, STOP);
    return in.bad ? 0 : in.at;
}

/* ---- dictionaries of texts ---- */

/* Put `bytes` that stand at `from` behind what is there; false if there is no room. */
static bool put(unsigned char *room, size_t *at, size_t room_bytes, const unsigned char *from, size_t bytes)
{
    if (bytes > room_bytes - *at) {
        return false;
    }
    for (size_t i = 0; i < bytes; i++) { /* they may overlap, to be repeated */
        room[*at + i] = from[i];
    }
    *at += bytes;
    return true;
}

static size_t take_little(reader *in, unsigned bytes)
{
    size_t number = 0;
    for (unsigned i = 0; i < bytes; i++) {
        number |= (size_t)take_byte(in) << 8 * i;
    }
    return number;
}

/* One element of Snappy's format: some bytes as they are, or a copy of earlier ones. */
static bool unpack_element(reader *in, unsigned char *room, size_t *at, size_t room_bytes)
{
    unsigned tag = take_byte(in), kind = tag & 3, high = tag >> 2;
    if (kind == 0) {
        size_t bytes = (high < 60 ? high : take_little(in, high - 59)) + 1;
        const unsigned char *from = in->data + in->at;
        in->bad |= bytes > in->size - in->at;
        in->at += in->bad ? 0 : bytes;
        return !in->bad && put(room, at, room_bytes, from, bytes);
    }
    size_t bytes = kind == 1 ? 4 + (high & 7) : high + 1;
    size_t back = kind == 1 ? (size_t)(high >> 3) << 8 | take_byte(in) : take_little(in, kind == 2 ? 2 : 4);
    return !in->bad && back > 0 && back <= *at && put(room, at, room_bytes, room + *at - back, bytes);
}

static bool unpack(const unsigned char *packed, size_t size, unsigned char *room, size_t bytes)
{
    reader in = {.data = packed, .size = size};
    size_t at = 0, length = 0;
    unsigned byte = 0x80;
    for (unsigned shift = 0; shift < 35 && byte & 0x80; shift += 7) {
        byte = take_byte(&in);
        length |= (size_t)(byte & 0x7f) << shift;
    }
    while (!in.bad && in.at < size) {
        in.bad |= !unpack_element(&in, room, &at, bytes);
    }
    return !in.bad && length == bytes && at == bytes;
}

bool shmlog_page_has_texts(const unsigned char *packed, size_t size, unsigned char *room, size_t bytes, int64_t count)
{
    if (!unpack(packed, size, room, bytes)) {
        return false;
    }
    reader in = {.data = room, .size = bytes};
    for (; count > 0 && !in.bad; count--) {
        size_t length = take_little(&in, 4);
        in.bad |= length > in.size - in.at;
        in.at += in.bad ? 0 : length;
    }
    return !in.bad && in.at == bytes;
}

/* ---- the file ---- */

typedef struct {
    int fd;
    int error;
    uint64_t next;     /* where in the file what follows the buffer begins */
    size_t begin, end; /* of what is in the buffer and was not taken */
    unsigned char buffer[BUFFER_BYTES];
} source;

/* Read some of a place, or all of it that there is. Returns how much. */
static size_t read_at(source *from, uint64_t place, unsigned char *room, size_t bytes)
{
    size_t have = 0;
    while (have < bytes) {
        ssize_t got = pread(from->fd, room + have, bytes - have, (off_t)(place + have));
        if (got < 0 && errno == EINTR) {
            continue;
        }
        if (got <= 0) {
            from->error = got < 0 ? errno : from->error;
            break;
        }
        have += (size_t)got;
    }
    return have;
}

/* Have at least `bytes`, or all that is left of the file. */
static void fill(source *from, size_t bytes)
{
    if (from->end - from->begin < bytes) {
        memmove(from->buffer, from->buffer + from->begin, from->end - from->begin);
        from->end -= from->begin;
        from->begin = 0;
        size_t got = read_at(from, from->next, from->buffer + from->end, sizeof from->buffer - from->end);
        from->end += got;
        from->next += got;
    }
}

static uint64_t place_of(const source *from) { return from->next - (from->end - from->begin); }

static void move_to(source *from, uint64_t place)
{
    if (place_of(from) != place) {
        from->begin = from->end = 0;
        from->next = place;
    }
}

/* Whether the next bytes are those that a checksum is of. */
static bool take_body(source *from, size_t bytes, uint32_t crc)
{
    uint32_t actual = 0;
    while (bytes) {
        fill(from, 1);
        size_t some = from->end - from->begin < bytes ? from->end - from->begin : bytes;
        if (some == 0) {
            return false;
        }
        actual = shmlog_crc32(actual, from->buffer + from->begin, some);
        from->begin += some;
        bytes -= some;
    }
    return actual == crc;
}

/* ---- what belongs together ---- */

typedef struct {
    unsigned encoding;
    bool has_texts, has_dictionary, is_full, is_plain;
    uint64_t texts_bytes_max; /* of its dictionary: that of all rows would be no larger */
    int64_t values;
} column;

/* Whether a dictionary of texts, which is next, has as many as its header says. */
static bool has_texts(source *from, const column *in, const shmlog_page *page)
{
    if (page->packed_bytes > in->texts_bytes_max || page->plain_bytes > in->texts_bytes_max) {
        return false;
    }
    unsigned char *packed = malloc(page->packed_bytes + page->plain_bytes);
    if (!packed) {
        from->error = ENOMEM;
        return false;
    }
    size_t size = read_at(from, place_of(from), packed, page->packed_bytes);
    bool has = shmlog_page_has_texts(packed, size, packed + page->packed_bytes, page->plain_bytes, page->values);
    free(packed);
    return has;
}

/* Whether a dictionary may stand there, and has as many values as its header says. */
static bool fits_dictionary(source *from, column *in, const shmlog_page *page)
{
    bool is_first = !in->has_dictionary && in->values == 0;
    in->has_dictionary = true;
    in->is_full = page->plain_bytes >= DICTIONARY_FULL_BYTES;
    if (in->encoding != RLE_DICTIONARY || !is_first) {
        return false;
    }
    return in->has_texts ? has_texts(from, in, page) : (uint64_t)page->values * sizeof(int32_t) == page->plain_bytes;
}

/* Whether the values may be encoded like that: as all of the column, or plainly behind a full dictionary. */
static bool fits_data(column *in, const shmlog_page *page)
{
    in->values += page->values;
    in->is_plain |= in->is_full && page->encoding == PLAIN;
    return page->encoding == (in->is_plain ? PLAIN : in->encoding) &&
           (in->has_dictionary || in->encoding != RLE_DICTIONARY);
}

/* Take the pages of a column of `rows` values; `place` is where the one begins that is damaged. */
static bool take_column(source *from, column in, int64_t rows, uint64_t *bytes, uint64_t *place)
{
    shmlog_page page;
    while (in.values < rows) {
        *place = place_of(from);
        fill(from, SHMLOG_PAGE_HEADER_MAX);
        size_t header = shmlog_page_read(from->buffer + from->begin, from->end - from->begin, &page);
        from->begin += header;
        *bytes += header + page.plain_bytes;
        if (header == 0 || !(page.is_dictionary ? fits_dictionary(from, &in, &page) : fits_data(&in, &page)) ||
            !take_body(from, page.packed_bytes, page.crc)) {
            return false;
        }
    }
    return in.values == rows;
}

static bool take_group(source *from, const shmlog_page_layout *layout, const shmlog_page_group *group, uint64_t *place)
{
    uint64_t bytes = 0;
    *place = (uint64_t)group->begin;
    if (group->begin < 0 || group->rows < 0 || group->bytes < 0) {
        return false;
    }
    uint64_t texts_bytes = (uint64_t)group->bytes < TEXTS_BYTES_MAX ? (uint64_t)group->bytes : TEXTS_BYTES_MAX;
    if ((uint64_t)group->rows < texts_bytes / TEXT_BYTES_MAX) {
        texts_bytes = (uint64_t)group->rows * TEXT_BYTES_MAX;
    }
    move_to(from, *place);
    for (size_t i = 0; i < layout->columns; i++) {
        unsigned encoding = layout->encodings[i];
        column in = {.encoding = encoding & ~(unsigned)SHMLOG_PAGE_TEXTS,
                     .has_texts = encoding & SHMLOG_PAGE_TEXTS,
                     .texts_bytes_max = texts_bytes};
        if (!take_column(from, in, group->rows, &bytes, place)) {
            return false;
        }
    }
    return bytes == (uint64_t)group->bytes;
}

shmlog_pages shmlog_pages_check(int fd, const shmlog_page_layout *layout, uint64_t *place)
{
    source *from = malloc(sizeof *from);
    if (!from) {
        return SHMLOG_PAGES_UNREADABLE; /* errno is ENOMEM */
    }
    from->fd = fd;
    from->error = 0;
    from->next = from->begin = from->end = 0;
    shmlog_pages found = SHMLOG_PAGES_SOUND;
    for (size_t i = 0; i < layout->group_count && found == SHMLOG_PAGES_SOUND; i++) {
        found = take_group(from, layout, &layout->groups[i], place) ? SHMLOG_PAGES_SOUND : SHMLOG_PAGES_DAMAGED;
    }
    int error = from->error;
    free(from);
    errno = error;
    return error ? SHMLOG_PAGES_UNREADABLE : found;
}
