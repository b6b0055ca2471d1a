/* The order of rows by name and then by keys: a stable counting sort by name,
 * and a natural merge sort of those names' rows that are not in order yet. */
#ifndef SHMLOG_ORDER_H
#define SHMLOG_ORDER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct {
    const int32_t *group; /* of each row, 0 ... groups - 1 */
    const int64_t *const *keys; /* columns, the most significant first */
    size_t groups;
    size_t key_count; /* at least 1 */
    size_t rows;
} shmlog_order_input;

/* Put the rows' numbers in order: by group, by keys, and as they stand. False if
 * there is no memory for it, or a group is out of range. */
bool shmlog_order(const shmlog_order_input *input, uint32_t *order);

#endif
