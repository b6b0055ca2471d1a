/* Append-only table of names: the same name has the same id in every process.
 *
 * An insert takes an id and room for the text, fills both, and publishes the id
 * with one compare-and-swap in the index. Killed before that, it leaves an id
 * that nobody uses. Nothing is ever changed or removed. */
#ifndef SHMLOG_NAMES_H
#define SHMLOG_NAMES_H

#include "format.h"

#include <stdbool.h>

#define SHMLOG_NO_NAME UINT32_MAX

/* The id of the name, which is added if it is new; SHMLOG_NO_NAME if the table
 * is full. `bytes` is 1 to SHMLOG_NAME_BYTES_MAX. */
uint32_t shmlog_name_intern(shmlog_name_table *names, uint64_t seed, const char *text, uint32_t bytes);

/* The text of an id; false if there is none that lies within the table. */
bool shmlog_name_text(const shmlog_name_table *names, uint32_t id, const char **text, uint32_t *bytes);

#endif
