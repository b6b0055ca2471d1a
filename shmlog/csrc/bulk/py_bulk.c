/* Module shmlog._bulk: what records/ does with millions of records at a time. Apart
 * from the core, for readers have no shared memory. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "../core/crc32.h"
#include "decode.h"
#include "lines.h"
#include "order.h"
#include "py_pages.h"

/* ---- buffers ---- */

/* A contiguous buffer of at least `bytes`; false with an exception set. */
static bool get_buffer(PyObject *object, Py_buffer *buffer, size_t bytes, int flags)
{
    if (PyObject_GetBuffer(object, buffer, flags) < 0) {
        return false;
    }
    if ((size_t)buffer->len < bytes) {
        PyErr_Format(PyExc_ValueError, "a buffer of %zd bytes where %zu are needed", buffer->len, bytes);
        PyBuffer_Release(buffer);
        return false;
    }
    return true;
}

static void release(Py_buffer *buffers, size_t count)
{
    while (count--) {
        PyBuffer_Release(&buffers[count]);
    }
}

/* ---- crc32 ---- */

static PyObject *bulk_crc32(PyObject *Py_UNUSED(module), PyObject *args)
{
    Py_buffer data;
    unsigned crc = 0;
    if (!PyArg_ParseTuple(args, "y*|I", &data, &crc)) {
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    crc = shmlog_crc32(crc, data.buf, (size_t)data.len);
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&data);
    return PyLong_FromUnsignedLong(crc);
}

/* ---- decode ---- */

enum { STEP, VALUE, TS, SEQ, NAME, KIND, UNIT, ITEMS, STRETCHES, SOUND, COLUMNS };

static const size_t width[COLUMNS] = {
    [STEP] = 8, [VALUE] = 8, [TS] = 8,   [SEQ] = 8,
    [NAME] = 4, [KIND] = 1,  [UNIT] = 4, [ITEMS] = sizeof(shmlog_log_item),
};

typedef struct {
    Py_buffer entries, slots;
    shmlog_log_clock clock;
} log_frame;

static bool get_frame(PyObject *tuple, log_frame *frame)
{
    PyObject *entries, *slots;
    long long ticks, utc_ns, shift_us;
    if (!PyArg_ParseTuple(tuple, "OOLLdL", &entries, &slots, &ticks, &utc_ns, &frame->clock.rate, &shift_us) ||
        !get_buffer(entries, &frame->entries, 0, PyBUF_WRITABLE)) {
        return false;
    }
    frame->clock.ticks = ticks;
    frame->clock.utc_ns = utc_ns;
    frame->clock.shift_us = shift_us;
    if (!get_buffer(slots, &frame->slots, 0, PyBUF_SIMPLE)) {
        PyBuffer_Release(&frame->entries);
        return false;
    }
    return true;
}

static void release_frames(log_frame *frames, Py_ssize_t count)
{
    while (count--) {
        PyBuffer_Release(&frames[count].entries);
        PyBuffer_Release(&frames[count].slots);
    }
    PyMem_Free(frames);
}

static size_t entries_of(const log_frame *frame) { return (size_t)frame->entries.len / sizeof(shmlog_log_entry); }

/* How many slots and entries there are; false if a frame's entries do not say how many slots it has. */
static bool count_slots(const log_frame *frames, Py_ssize_t count, size_t *slots, size_t *entries)
{
    *slots = *entries = 0;
    for (Py_ssize_t i = 0; i < count; i++) {
        const shmlog_log_entry *entry = frames[i].entries.buf;
        uint64_t told = 0;
        for (size_t k = 0; k < entries_of(&frames[i]); k++) {
            told += entry[k].slots;
        }
        if (told * sizeof(shmlog_slot) != (uint64_t)frames[i].slots.len) {
            PyErr_SetString(PyExc_ValueError, "lane entries that do not match the slots");
            return false;
        }
        *slots += told;
        *entries += entries_of(&frames[i]);
    }
    return true;
}

static void decode_frame(shmlog_columns *columns, const log_frame *frame, uint32_t *sound)
{
    shmlog_log_entry *entry = frame->entries.buf;
    const unsigned char *slots = frame->slots.buf;
    for (size_t i = 0; i < entries_of(frame); i++) {
        size_t bytes = entry[i].slots * sizeof(shmlog_slot);
        sound[columns->entry_count] = shmlog_decode_entry(columns, slots, &entry[i], &frame->clock);
        slots += bytes;
    }
}

static PyObject *decode_frames(const log_frame *frames, Py_ssize_t count, const Py_buffer *names, PyObject *given)
{
    size_t slots, entries, taken = 0;
    Py_buffer buffers[COLUMNS];
    if (!count_slots(frames, count, &slots, &entries)) {
        return NULL;
    }
    for (; taken < COLUMNS; taken++) {
        size_t bytes = taken == STRETCHES ? (slots + entries) * sizeof(shmlog_log_stretch)
                       : taken == SOUND   ? entries * sizeof(uint32_t)
                                          : slots * width[taken];
        if (!get_buffer(PyTuple_GET_ITEM(given, (Py_ssize_t)taken), &buffers[taken], bytes, PyBUF_WRITABLE)) {
            release(buffers, taken);
            return NULL;
        }
    }
    shmlog_columns columns = {
        .step = buffers[STEP].buf, .value = buffers[VALUE].buf, .ts_us = buffers[TS].buf, .seq = buffers[SEQ].buf,
        .name = buffers[NAME].buf, .kind = buffers[KIND].buf, .unit = buffers[UNIT].buf,
        .items = buffers[ITEMS].buf, .stretches = buffers[STRETCHES].buf,
        .names = names->buf, .names_count = (size_t)names->len / sizeof(int32_t),
    };
    Py_BEGIN_ALLOW_THREADS
    for (Py_ssize_t i = 0; i < count; i++) {
        decode_frame(&columns, &frames[i], buffers[SOUND].buf);
    }
    Py_END_ALLOW_THREADS
    release(buffers, COLUMNS);
    return Py_BuildValue("nnnIKI", (Py_ssize_t)columns.row_count, (Py_ssize_t)columns.item_count,
                         (Py_ssize_t)columns.stretch_count, (unsigned)columns.kinds,
                         (unsigned long long)columns.nameless, (unsigned)columns.nameless_entry);
}

static PyObject *bulk_decode(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *frames, *columns, *result = NULL;
    Py_buffer names;
    if (!PyArg_ParseTuple(args, "O!y*O!", &PyList_Type, &frames, &names, &PyTuple_Type, &columns)) {
        return NULL;
    }
    Py_ssize_t count = PyList_GET_SIZE(frames), got = 0;
    log_frame *found = PyMem_Calloc((size_t)count + 1, sizeof *found);
    if (PyTuple_GET_SIZE(columns) != COLUMNS) {
        PyErr_Format(PyExc_ValueError, "%d columns are needed", COLUMNS);
    } else if (!found) {
        PyErr_NoMemory();
    } else {
        while (got < count && get_frame(PyList_GET_ITEM(frames, got), &found[got])) {
            got++;
        }
        result = got == count ? decode_frames(found, count, &names, columns) : NULL;
    }
    release_frames(found, got);
    PyBuffer_Release(&names);
    return result;
}

/* ---- order ---- */

enum { ORDER_KEYS_MAX = 4 };

static PyObject *order_into(shmlog_order_input *input, PyObject *object)
{
    Py_buffer order;
    bool done;
    if (!get_buffer(object, &order, input->rows * sizeof(uint32_t), PyBUF_WRITABLE)) {
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    done = shmlog_order(input, order.buf);
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&order);
    if (!done) {
        PyErr_SetString(PyExc_MemoryError, "no memory to sort by, or a group out of range");
        return NULL;
    }
    Py_RETURN_NONE;
}

static PyObject *bulk_order(PyObject *Py_UNUSED(module), PyObject *args)
{
    PyObject *keys, *order, *result = NULL;
    Py_buffer group, buffers[ORDER_KEYS_MAX];
    const int64_t *columns[ORDER_KEYS_MAX];
    Py_ssize_t groups;
    if (!PyArg_ParseTuple(args, "y*nO!O", &group, &groups, &PyTuple_Type, &keys, &order)) {
        return NULL;
    }
    size_t count = (size_t)PyTuple_GET_SIZE(keys), taken = 0;
    shmlog_order_input input = {.group = group.buf, .keys = columns, .groups = (size_t)groups, .key_count = count,
                                .rows = (size_t)group.len / sizeof(int32_t)};
    if (count < 1 || count > ORDER_KEYS_MAX || groups < 0) {
        PyErr_Format(PyExc_ValueError, "1 to %d keys, and not less than 0 groups", ORDER_KEYS_MAX);
    } else {
        while (taken < count && get_buffer(PyTuple_GET_ITEM(keys, (Py_ssize_t)taken), &buffers[taken],
                                           input.rows * sizeof(int64_t), PyBUF_SIMPLE)) {
            columns[taken] = buffers[taken].buf;
            taken++;
        }
        result = taken == count ? order_into(&input, order) : NULL;
        release(buffers, taken);
    }
    PyBuffer_Release(&group);
    return result;
}

/* ---- lines ---- */

enum { LINE_COLUMNS = 7, LINE_TEXTS = 4, LINE_BUFFERS = LINE_COLUMNS + 2 * LINE_TEXTS };

/* Texts of a pair of buffers: offsets, data. False if an offset is out of range. */
static bool get_texts(const Py_buffer *offsets, const Py_buffer *data, shmlog_texts *texts)
{
    texts->offsets = offsets->buf;
    texts->data = data->buf;
    texts->count = offsets->len ? (size_t)offsets->len / sizeof(int32_t) - 1 : 0;
    for (size_t i = 0; i < texts->count; i++) {
        if (texts->offsets[i] < 0 || texts->offsets[i + 1] < texts->offsets[i]) {
            return false;
        }
    }
    return texts->count == 0 || texts->offsets[texts->count] <= data->len;
}

/* The buffers are order, first, ts_us, step, seq, name, producer; then offsets and
 * data of values, names, producers, others. */
static bool get_lines(const Py_buffer *buffers, shmlog_line_input *input)
{
    const Py_buffer *texts = buffers + LINE_COLUMNS;
    *input = (shmlog_line_input){
        .order = buffers[0].buf, .lines = (size_t)buffers[0].len / sizeof(uint32_t),
        .first = buffers[1].buf, .calls = (size_t)buffers[1].len / sizeof(int64_t) - (buffers[1].len > 0),
        .ts_us = buffers[2].buf, .rows = (size_t)buffers[2].len / sizeof(int64_t),
        .step = buffers[3].buf, .seq = buffers[4].buf, .name = buffers[5].buf, .producer = buffers[6].buf,
    };
    bool fits = (size_t)buffers[3].len >= input->rows * sizeof(int64_t) &&
                (size_t)buffers[4].len >= input->rows * sizeof(int64_t) &&
                (size_t)buffers[5].len >= input->rows * sizeof(int32_t) &&
                (size_t)buffers[6].len >= input->rows * sizeof(int32_t);
    return fits && get_texts(&texts[0], &texts[1], &input->values) && input->values.count >= input->rows &&
           get_texts(&texts[2], &texts[3], &input->names) && get_texts(&texts[4], &texts[5], &input->producers) &&
           get_texts(&texts[6], &texts[7], &input->others);
}

static PyObject *make_lines(const Py_buffer *buffers)
{
    shmlog_line_input input;
    size_t room = get_lines(buffers, &input) ? shmlog_lines_room(&input) : 0;
    if (room == 0) {
        PyErr_SetString(PyExc_ValueError, "columns that do not fit together");
        return NULL;
    }
    PyObject *lines = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)room);
    if (lines) {
        size_t bytes;
        Py_BEGIN_ALLOW_THREADS
        bytes = shmlog_lines_write(&input, PyBytes_AS_STRING(lines));
        Py_END_ALLOW_THREADS
        _PyBytes_Resize(&lines, (Py_ssize_t)bytes);
    }
    return lines;
}

static PyObject *bulk_lines(PyObject *Py_UNUSED(module), PyObject *const *args, Py_ssize_t count)
{
    Py_buffer buffers[LINE_BUFFERS];
    size_t taken = 0;
    if (count != LINE_BUFFERS) {
        return PyErr_Format(PyExc_TypeError, "lines() takes %d buffers", LINE_BUFFERS);
    }
    while (taken < LINE_BUFFERS && get_buffer(args[taken], &buffers[taken], 0, PyBUF_SIMPLE)) {
        taken++;
    }
    PyObject *lines = taken == LINE_BUFFERS ? make_lines(buffers) : NULL;
    release(buffers, taken);
    return lines;
}

/* ---- module ---- */

PyDoc_STRVAR(decode_doc, "decode(frames, names, columns)\n--\n\n"
                         "Slots of frames to columns; see records/columns.py, which makes them.");

PyDoc_STRVAR(order_doc, "order(group, groups, keys, order)\n--\n\n"
                        "Put the rows' numbers into `order`: by group, then by keys, then as they stand.");

PyDoc_STRVAR(lines_doc, "lines(order, first, ts_us, step, seq, name, producer, *texts)\n--\n\n"
                        "Lines of events.jsonl; see csrc/bulk/lines.h.");

PyDoc_STRVAR(check_pages_doc, "check_pages(fd, groups, encodings)\n--\n\n"
                              "Raise ValueError unless the pages of a part are as they were written. `groups` is of\n"
                              "int64, three for each row group, as the footer says: where it begins, its rows, its bytes\n"
                              "unpacked. `encodings` is a byte for each column, see csrc/bulk/pages.h.");

static PyMethodDef functions[] = {
    {"crc32", bulk_crc32, METH_VARARGS, "crc32(data, crc=0)\n--\n\nThe same as zlib.crc32()."},
    {"decode", bulk_decode, METH_VARARGS, decode_doc},
    {"order", bulk_order, METH_VARARGS, order_doc},
    {"lines", (PyCFunction)(void (*)(void))bulk_lines, METH_FASTCALL, lines_doc},
    {"check_pages", shmlog_py_check_pages, METH_VARARGS, check_pages_doc},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot module_slots[] = {
#if PY_VERSION_HEX >= 0x030C0000
    {Py_mod_multiple_interpreters, Py_MOD_PER_INTERPRETER_GIL_SUPPORTED},
#endif
#if PY_VERSION_HEX >= 0x030D0000
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static struct PyModuleDef module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "shmlog._bulk",
    .m_doc = "Slots to columns, their order, lines, pages of parts: no shared memory, no state.",
    .m_methods = functions,
    .m_slots = module_slots,
};

PyMODINIT_FUNC PyInit__bulk(void) { return PyModuleDef_Init(&module); }
