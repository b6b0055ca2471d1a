/* A column: numbers to log in one call, one record each, from an array, which is read through the buffer
 * protocol, or from another sequence, whose elements are converted one by one. All of it is checked when it
 * is opened. */
#ifndef SHMLOG_PY_COLUMN_H
#define SHMLOG_PY_COLUMN_H

#include "py_value.h"

typedef struct {
    Py_ssize_t count;

    /* Of an array. */
    Py_buffer view;
    char format; /* of struct, without byte order */
    bool is_signed;
    Py_ssize_t stride;

    /* Of a sequence: what each of its elements is converted to. */
    uint64_t *bits; /* NULL: it is an array */
    uint8_t *kinds;
} shmlog_column;

/* Open the values, or the steps, of an extend(). Returns false with an exception set; may run Python code. */
bool shmlog_column_open_values(PyObject *values, shmlog_column *column);
bool shmlog_column_open_steps(PyObject *steps, shmlog_column *column);

void shmlog_column_close(shmlog_column *column);

static inline bool shmlog_column_is_float(const shmlog_column *column)
{
    return column->format == 'd' || column->format == 'f' || column->format == 'e';
}

static inline const char *shmlog_column_at(const shmlog_column *column, Py_ssize_t i)
{
    return (const char *)column->view.buf + i * column->stride;
}

static inline double shmlog_column_float(const shmlog_column *column, Py_ssize_t i)
{
    const char *at = shmlog_column_at(column, i);
    if (column->format == 'd') {
        double value;
        memcpy(&value, at, sizeof value);
        return value;
    }
    return column->format == 'f' ? PyFloat_Unpack4(at, 1) : PyFloat_Unpack2(at, 1);
}

static inline uint64_t shmlog_column_bytes(const shmlog_column *column, Py_ssize_t i)
{
    uint64_t value = 0;
    if (column->view.itemsize == sizeof value) {
        memcpy(&value, shmlog_column_at(column, i), sizeof value); /* one load, where the other is a call */
    } else {
        memcpy(&value, shmlog_column_at(column, i), (size_t)column->view.itemsize); /* little-endian */
    }
    return value;
}

/* The element of a column of ints. */
static inline int64_t shmlog_column_int(const shmlog_column *column, Py_ssize_t i)
{
    if (column->bits) {
        return (int64_t)column->bits[i];
    }
    uint64_t value = shmlog_column_bytes(column, i);
    if (column->is_signed) {
        unsigned unused = 64 - 8 * (unsigned)column->view.itemsize;
        return (int64_t)(value << unused) >> unused;
    }
    return (int64_t)value;
}

/* The element as a slot holds it. */
static inline uint64_t shmlog_column_bits(const shmlog_column *column, Py_ssize_t i)
{
    if (column->bits) {
        return column->bits[i];
    }
    if (shmlog_column_is_float(column)) {
        return shmlog_float_bits(shmlog_column_float(column, i));
    }
    return column->format == '?' ? shmlog_column_bytes(column, i) != 0 : (uint64_t)shmlog_column_int(column, i);
}

static inline unsigned shmlog_column_kind(const shmlog_column *column, Py_ssize_t i)
{
    if (column->kinds) {
        return column->kinds[i];
    }
    return shmlog_column_is_float(column) ? SHMLOG_FLOAT : column->format == '?' ? SHMLOG_BOOL : SHMLOG_INT;
}

#endif
