/* Module shmlog._core: its types and constants, nothing else. */
#include "py_core.h"
#include "../core/clock.h"
#include "../core/segment.h"

static PyObject *core_head_bytes(PyObject *Py_UNUSED(module), PyObject *arg)
{
    unsigned long lanes = PyLong_AsUnsignedLong(arg);
    return PyErr_Occurred() ? NULL : PyLong_FromUnsignedLongLong(shmlog_segment_head_bytes((uint32_t)lanes));
}

PyDoc_STRVAR(owner_record_doc, "owner_record(rank, local_rank, worker, script)\n--\n\n"
                               "The JSON object of this process; what is None is found out.");

PyDoc_STRVAR(state_of_doc, "state_of(paths)\n--\n\n"
                           "A number that is another one when one of the files has been made, replaced or removed; "
                           "0: there is none of them.");

PyDoc_STRVAR(variable_doc, "variable(name)\n--\n\n"
                           "What the environment has by that name, or None: `os.environ` takes ten times as long to "
                           "tell that it has nothing.");

static PyMethodDef functions[] = {
    {"head_bytes", core_head_bytes, METH_O, "head_bytes(lanes)\n--\n\nBytes of a segment before its first lane."},
    {"owner_record", shmlog_py_owner_record, METH_VARARGS, owner_record_doc},
    {"state_of", shmlog_py_state_of, METH_O, state_of_doc},
    {"variable", shmlog_py_variable, METH_O, variable_doc},
    {NULL, NULL, 0, NULL},
};

shmlog_state *shmlog_state_of(PyTypeObject *type)
{
    return PyModule_GetState(PyType_GetModuleByDef(type, &shmlog_module));
}

static int add_type(PyObject *module, PyType_Spec *spec, PyTypeObject **type)
{
    *type = (PyTypeObject *)PyType_FromModuleAndSpec(module, spec, NULL);
    return *type ? PyModule_AddType(module, *type) : -1;
}

static int find_errors(shmlog_state *state)
{
    PyObject *errors = PyImport_ImportModule("shmlog.errors");
    if (!errors) {
        return -1;
    }
    state->segment_error = PyObject_GetAttrString(errors, "SegmentError");
    state->dropped_error = PyObject_GetAttrString(errors, "DroppedError");
    state->run_state_error = PyObject_GetAttrString(errors, "RunStateError");
    Py_DECREF(errors);
    return state->segment_error && state->dropped_error && state->run_state_error ? 0 : -1;
}

static int add_constants(PyObject *module)
{
    static const struct {
        const char *name;
        long value;
    } constants[] = {
        {"LOCK_FLUSHER", SHMLOG_LOCK_FLUSHER},
        {"LOCK_START", SHMLOG_LOCK_START},
        {"LOCK_MEMBER", SHMLOG_LOCK_MEMBER},
        {"LOCK_LANE", SHMLOG_LOCK_LANE},
        {"LANES_MAX", SHMLOG_LANES_MAX},
        {"LANE_SLOTS_MIN", SHMLOG_LANE_SLOTS_MIN},
        {"LANE_SLOTS_MAX", SHMLOG_LANE_SLOTS_MAX},
        {"SLOT_BYTES", sizeof(shmlog_slot)},
        {"OWNER_BYTES_MAX", SHMLOG_OWNER_BYTES_MAX},
        {"NAME_BYTES_MAX", SHMLOG_NAME_BYTES_MAX},
        {"NAMES_MAX", SHMLOG_NAMES_MAX},
        {"CLOCK_MONOTONIC", SHMLOG_CLOCK_MONOTONIC},
        {"CLOCK_TSC", SHMLOG_CLOCK_TSC},
        {"HAS_TSC", SHMLOG_HAS_TSC},
    };
    for (size_t i = 0; i < sizeof constants / sizeof *constants; i++) {
        if (PyModule_AddIntConstant(module, constants[i].name, constants[i].value) < 0) {
            return -1;
        }
    }
    return 0;
}

static int execute(PyObject *module)
{
    shmlog_state *state = PyModule_GetState(module);
    state->interned_step = PyUnicode_InternFromString("step");
    state->producer_type = (PyTypeObject *)PyType_FromModuleAndSpec(module, &shmlog_producer_spec, NULL);
    if (!state->interned_step || !state->producer_type || find_errors(state) < 0 ||
        add_type(module, &shmlog_segment_spec, &state->segment_type) < 0 ||
        add_type(module, &shmlog_metric_spec, &state->metric_type) < 0 ||
        add_type(module, &shmlog_run_spec, &state->run_type) < 0 ||
        add_type(module, &shmlog_drain_spec, &state->drain_type) < 0) {
        return -1;
    }
    return add_constants(module);
}

static int traverse(PyObject *module, visitproc visit, void *arg)
{
    shmlog_state *state = PyModule_GetState(module);
    Py_VISIT(state->segment_type);
    Py_VISIT(state->producer_type);
    Py_VISIT(state->run_type);
    Py_VISIT(state->metric_type);
    Py_VISIT(state->drain_type);
    Py_VISIT(state->segment_error);
    Py_VISIT(state->dropped_error);
    Py_VISIT(state->run_state_error);
    return 0;
}

static int clear(PyObject *module)
{
    shmlog_state *state = PyModule_GetState(module);
    Py_CLEAR(state->segment_type);
    Py_CLEAR(state->producer_type);
    Py_CLEAR(state->run_type);
    Py_CLEAR(state->metric_type);
    Py_CLEAR(state->drain_type);
    Py_CLEAR(state->segment_error);
    Py_CLEAR(state->dropped_error);
    Py_CLEAR(state->run_state_error);
    Py_CLEAR(state->interned_step);
    return 0;
}

static PyModuleDef_Slot module_slots[] = {
    {Py_mod_exec, execute},
#if PY_VERSION_HEX >= 0x030C0000
    {Py_mod_multiple_interpreters, Py_MOD_MULTIPLE_INTERPRETERS_NOT_SUPPORTED},
#endif
#if PY_VERSION_HEX >= 0x030D0000
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

struct PyModuleDef shmlog_module = {
    PyModuleDef_HEAD_INIT,
    .m_name = "shmlog._core",
    .m_doc = "The C core of shmlog: shared memory, lanes, the drain.",
    .m_size = sizeof(shmlog_state),
    .m_methods = functions,
    .m_slots = module_slots,
    .m_traverse = traverse,
    .m_clear = clear,
};

PyMODINIT_FUNC PyInit__core(void) { return PyModuleDef_Init(&shmlog_module); }
