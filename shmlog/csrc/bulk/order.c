/* The merge sort is the natural one: D. E. Knuth, "The Art of Computer
 * Programming", volume 3, section 5.2.4, algorithm N. Rows of a few producers
 * are a few ascending runs. */
#include "order.h"

#include <stdlib.h>
#include <string.h>

/* A row with its first key beside it, so that most comparisons stay in the caches. */
typedef struct {
    int64_t key;
    uint32_t row;
} entry;

typedef struct {
    const shmlog_order_input *input;
    entry *entries; /* of one group */
    entry *merged;
    size_t *ends; /* where runs end */
} sorter;

static bool is_after_by_rest(const shmlog_order_input *input, uint32_t a, uint32_t b)
{
    for (size_t key = 1; key < input->key_count; key++) {
        int64_t first = input->keys[key][a], second = input->keys[key][b];
        if (first != second) {
            return first > second;
        }
    }
    return false;
}

/* Whether `a`, which stands before `b`, must come after it. */
static inline bool is_after(const shmlog_order_input *input, const entry *a, const entry *b)
{
    return a->key > b->key || (a->key == b->key && is_after_by_rest(input, a->row, b->row));
}

static void merge_runs(const sorter *sort, size_t begin, size_t middle, size_t end)
{
    const entry *left = sort->entries + begin, *left_end = sort->entries + middle;
    const entry *right = left_end, *right_end = sort->entries + end;
    entry *out = sort->merged + begin;
    while (left < left_end && right < right_end) {
        bool takes_right = is_after(sort->input, left, right);
        *out++ = takes_right ? *right : *left;
        right += takes_right;
        left += !takes_right;
    }
    memcpy(out, left, (size_t)(left_end - left) * sizeof *out);
    memcpy(out + (left_end - left), right, (size_t)(right_end - right) * sizeof *out);
}

static size_t find_runs(const sorter *sort, size_t count)
{
    size_t runs = 0;
    for (size_t i = 1; i < count; i++) {
        if (is_after(sort->input, &sort->entries[i - 1], &sort->entries[i])) {
            sort->ends[runs++] = i;
        }
    }
    sort->ends[runs++] = count;
    return runs;
}

static void sort_group(sorter *sort, uint32_t *order, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        sort->entries[i] = (entry){.key = sort->input->keys[0][order[i]], .row = order[i]};
    }
    size_t runs = find_runs(sort, count);
    if (runs == 1) {
        return;
    }
    while (runs > 1) {
        size_t begin = 0, left = 0;
        for (size_t run = 0; run < runs; run += 2) {
            size_t middle = sort->ends[run];
            size_t end = run + 1 < runs ? sort->ends[run + 1] : middle;
            merge_runs(sort, begin, middle, end);
            sort->ends[left++] = begin = end;
        }
        runs = left;
        entry *merged = sort->merged;
        sort->merged = sort->entries;
        sort->entries = merged;
    }
    for (size_t i = 0; i < count; i++) {
        order[i] = sort->entries[i].row;
    }
}

/* Rows by group, as they stand; `begins` gets where each group begins. */
static bool count_groups(const shmlog_order_input *input, uint32_t *order, size_t *begins)
{
    for (size_t row = 0; row < input->rows; row++) {
        if ((size_t)(uint32_t)input->group[row] >= input->groups) {
            return false;
        }
        begins[input->group[row] + 1]++;
    }
    for (size_t group = 0; group < input->groups; group++) {
        begins[group + 1] += begins[group];
    }
    for (size_t row = 0; row < input->rows; row++) {
        order[begins[input->group[row]]++] = (uint32_t)row;
    }
    memmove(begins + 1, begins, input->groups * sizeof *begins);
    begins[0] = 0;
    return true;
}

static bool sort_groups(sorter *sort, uint32_t *order, const size_t *begins)
{
    size_t largest = 1;
    for (size_t group = 0; group < sort->input->groups; group++) {
        size_t count = begins[group + 1] - begins[group];
        largest = count > largest ? count : largest;
    }
    entry *space = malloc(2 * largest * sizeof *space);
    sort->ends = malloc(largest * sizeof *sort->ends);
    sort->entries = space;
    sort->merged = space + largest;
    bool fits = space && sort->ends;
    for (size_t group = 0; fits && group < sort->input->groups; group++) {
        sort_group(sort, order + begins[group], begins[group + 1] - begins[group]);
    }
    free(space);
    free(sort->ends);
    return fits;
}

bool shmlog_order(const shmlog_order_input *input, uint32_t *order)
{
    sorter sort = {.input = input};
    size_t *begins = calloc(input->groups + 2, sizeof *begins);
    bool done = begins && input->rows <= UINT32_MAX && count_groups(input, order, begins) &&
                sort_groups(&sort, order, begins);
    free(begins);
    return done;
}
