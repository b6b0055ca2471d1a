#include "footer.h"

#include <string.h>

/* What a field or an element is. Parquet has no maps. */
enum { STOP, YES, NO, BYTE, I16, I32, I64, DOUBLE, BINARY, LIST, SET, MAP, STRUCT };

enum { DEPTH_MAX = 16 };

/* Ids of fields, as parquet.thrift numbers them. */
enum { FILE_VERSION = 1, FILE_SCHEMA = 2, FILE_ROWS = 3, FILE_GROUPS = 4 };
enum { GROUP_COLUMNS = 1, GROUP_ROWS = 3, GROUP_PLACE = 5 };
enum { CHUNK_COLUMN = 3 };
enum { COLUMN_BYTES = 7, COLUMN_DATA = 9, COLUMN_INDEX = 10, COLUMN_DICTIONARY = 11, COLUMN_BOUNDS = 12 };
enum { BOUNDS_HIGH = 5, BOUNDS_LOW = 6 };

/* ---- reading ---- */

/* Behind a mistake there is nothing but STOP, so that every loop comes to its end. */
typedef struct {
    const unsigned char *data;
    size_t at, size;
    bool bad;
} reader;

static void fail(reader *in)
{
    in->at = in->size;
    in->bad = true;
}

static unsigned take_byte(reader *in)
{
    if (in->at >= in->size) {
        fail(in);
        return STOP;
    }
    return in->data[in->at++];
}

static uint64_t take_varint(reader *in)
{
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
        uint64_t byte = take_byte(in);
        value |= (byte & 0x7f) << shift;
        if (byte < 0x80) {
            return value;
        }
    }
    fail(in);
    return 0;
}

static int64_t take_number(reader *in)
{
    uint64_t raw = take_varint(in);
    return (int64_t)(raw >> 1 ^ (0 - (raw & 1)));
}

static void pass(reader *in, uint64_t bytes)
{
    if (bytes > in->size - in->at) {
        fail(in);
    } else {
        in->at += (size_t)bytes;
    }
}

/* The type of the next field; `id` is that of the one before, and becomes its own. */
static unsigned take_field(reader *in, int64_t *id)
{
    unsigned head = take_byte(in), type = head & 15, step = head >> 4;
    if (type != STOP) {
        *id = step ? *id % 0x8000 + step : take_number(in);
    }
    return type;
}

static uint64_t take_list(reader *in, unsigned *type)
{
    unsigned head = take_byte(in);
    *type = head & 15;
    return head >> 4 == 15 ? take_varint(in) : head >> 4;
}

static void skip(reader *in, unsigned type, unsigned depth);

static void skip_list(reader *in, unsigned depth)
{
    unsigned type;
    uint64_t count = take_list(in, &type);
    for (uint64_t i = 0; i < count && !in->bad; i++) {
        skip(in, type == YES || type == NO ? BYTE : type, depth);
    }
}

static void skip_struct(reader *in, unsigned depth)
{
    int64_t id = 0;
    for (unsigned type; (type = take_field(in, &id)) != STOP;) {
        skip(in, type, depth);
    }
}

static void skip(reader *in, unsigned type, unsigned depth)
{
    if (type == BYTE || type == DOUBLE) {
        pass(in, type == BYTE ? 1 : 8);
    } else if (type >= I16 && type <= I64) {
        take_varint(in);
    } else if (type == BINARY) {
        pass(in, take_varint(in));
    } else if (type == LIST && depth < DEPTH_MAX) {
        skip_list(in, depth + 1);
    } else if (type == STRUCT && depth < DEPTH_MAX) {
        skip_struct(in, depth + 1);
    } else if (type != YES && type != NO) { /* those stand in the type itself */
        fail(in);
    }
}

static reader reader_at(const shmlog_footer *footer, size_t at)
{
    return (reader){.data = footer->data, .at = at < footer->size ? at : footer->size, .size = footer->size};
}

/* ---- what is there ---- */

bool shmlog_footer_find(const shmlog_footer *footer, shmlog_footer_parts *parts)
{
    static const unsigned types[] = {[FILE_VERSION] = I32, [FILE_SCHEMA] = LIST, [FILE_ROWS] = I64};
    reader in = reader_at(footer, 0);
    int64_t id = 0;
    *parts = (shmlog_footer_parts){0};
    for (int64_t wanted = FILE_VERSION; wanted <= FILE_ROWS; wanted++) {
        if (take_field(&in, &id) != types[wanted] || id != wanted) {
            return false;
        }
        skip(&in, types[wanted], 0);
        if (wanted == FILE_SCHEMA) {
            parts->schema_end = in.at;
        }
    }
    unsigned type = take_field(&in, &id), of;
    parts->count = take_list(&in, &of);
    parts->groups = in.at;
    return type == LIST && id == FILE_GROUPS && of == STRUCT && !in.bad;
}

static void scan_bounds(reader *in, shmlog_row_group *group)
{
    int64_t id = 0;
    for (unsigned type; (type = take_field(in, &id)) != STOP;) {
        bool is_low = id == BOUNDS_LOW, is_high = id == BOUNDS_HIGH;
        if (type != BINARY || !(is_low || is_high)) {
            skip(in, type, 0);
            continue;
        }
        uint64_t size = take_varint(in);
        *(is_low ? &group->low : &group->high) = in->at;
        *(is_low ? &group->low_size : &group->high_size) = (size_t)size;
        *(is_low ? &group->has_low : &group->has_high) = true;
        pass(in, size);
    }
}

static void scan_column(reader *in, shmlog_row_group *group, bool with_bounds)
{
    int64_t id = 0, data = -1, dictionary = -1, bytes = -1;
    for (unsigned type; (type = take_field(in, &id)) != STOP;) {
        if (type == I64 && id == COLUMN_DATA) {
            data = take_number(in);
        } else if (type == I64 && id == COLUMN_DICTIONARY) {
            dictionary = take_number(in);
        } else if (type == I64 && id == COLUMN_BYTES) {
            bytes = take_number(in);
        } else if (type == STRUCT && id == COLUMN_BOUNDS && with_bounds) {
            scan_bounds(in, group);
        } else {
            skip(in, type, 0);
        }
    }
    int64_t begin = dictionary > 0 && dictionary < data ? dictionary : data;
    if (begin < 0 || bytes < 0 || begin > INT64_MAX - bytes) {
        fail(in);
        return;
    }
    group->pages_begin = begin < group->pages_begin ? begin : group->pages_begin;
    group->pages_end = begin + bytes > group->pages_end ? begin + bytes : group->pages_end;
}

static void scan_chunk(reader *in, shmlog_row_group *group, bool with_bounds)
{
    int64_t id = 0;
    for (unsigned type; (type = take_field(in, &id)) != STOP;) {
        if (type == STRUCT && id == CHUNK_COLUMN) {
            scan_column(in, group, with_bounds);
        } else {
            skip(in, type, 0);
        }
    }
}

static void scan_chunks(reader *in, shmlog_row_group *group, uint64_t column)
{
    unsigned type;
    uint64_t count = take_list(in, &type);
    if (type != STRUCT) {
        fail(in);
    }
    for (uint64_t i = 0; i < count && !in->bad; i++) {
        scan_chunk(in, group, i == column);
    }
}

bool shmlog_footer_group(const shmlog_footer *footer, size_t at, uint64_t column, shmlog_row_group *group)
{
    reader in = reader_at(footer, at);
    int64_t id = 0;
    *group = (shmlog_row_group){.begin = at, .rows = -1, .pages_begin = INT64_MAX};
    for (unsigned type; (type = take_field(&in, &id)) != STOP;) {
        if (type == LIST && id == GROUP_COLUMNS) {
            scan_chunks(&in, group, column);
        } else if (type == I64 && id == GROUP_ROWS) {
            group->rows = take_number(&in);
        } else {
            skip(&in, type, 0);
        }
    }
    group->end = in.at;
    return !in.bad && group->rows >= 0 && group->pages_begin <= group->pages_end;
}

/* ---- moving ---- */

typedef struct {
    unsigned char *out; /* NULL: the bytes are only counted */
    size_t size;
    int64_t by;
} mover;

/* A row group, its column chunks, their columns: which fields are places in the file, and which holds the next. */
enum { GROUP, CHUNK, COLUMN };

static const struct {
    unsigned places;
    int64_t inner;
} level_of[] = {
    [GROUP] = {1u << GROUP_PLACE, GROUP_COLUMNS},
    [CHUNK] = {0, CHUNK_COLUMN}, /* its places are those of indexes, which nobody reads there */
    [COLUMN] = {1u << COLUMN_DATA | 1u << COLUMN_INDEX | 1u << COLUMN_DICTIONARY, 0},
};

static void put(mover *to, const unsigned char *bytes, size_t size)
{
    if (to->out) {
        memcpy(to->out + to->size, bytes, size);
    }
    to->size += size;
}

static void put_place(mover *to, int64_t place)
{
    uint64_t moved = (uint64_t)place + (uint64_t)to->by;
    uint64_t raw = moved << 1 ^ (0 - (moved >> 63));
    unsigned char bytes[10];
    size_t size = 0;
    for (; raw >= 0x80; raw >>= 7) {
        bytes[size++] = (unsigned char)(raw | 0x80);
    }
    bytes[size++] = (unsigned char)raw;
    put(to, bytes, size);
}

static void move_struct(reader *in, mover *to, unsigned level)
{
    int64_t id = 0;
    for (unsigned type = BYTE; type != STOP;) {
        size_t from = in->at;
        type = take_field(in, &id);
        bool is_place = type == I64 && id > 0 && id < 32 && level_of[level].places >> id & 1;
        bool is_inner = level < COLUMN && id == level_of[level].inner && (type == LIST || type == STRUCT);
        unsigned of = STRUCT;
        uint64_t count = 1;
        if (is_inner && type == LIST) {
            count = take_list(in, &of);
        } else if (!is_inner && !is_place && type != STOP) {
            skip(in, type, 0);
        }
        if (of != STRUCT) {
            fail(in);
        }
        put(to, in->data + from, in->at - from);
        if (is_place) {
            put_place(to, take_number(in));
        }
        for (uint64_t i = 0; is_inner && i < count && !in->bad; i++) {
            move_struct(in, to, level + 1);
        }
    }
}

size_t shmlog_footer_move(const shmlog_footer *footer, size_t at, int64_t by, unsigned char *out)
{
    reader in = reader_at(footer, at);
    mover to = {.out = out, .by = by};
    move_struct(&in, &to, GROUP);
    return in.bad ? 0 : to.size;
}
