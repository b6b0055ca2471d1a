/* CRC-32 with the polynomial of zlib, so that readers without this core can
 * check a frame with the standard library of their language. */
#ifndef SHMLOG_CRC32_H
#define SHMLOG_CRC32_H

#include <stddef.h>
#include <stdint.h>

/* Continue `crc` (0 at the start) over `bytes` bytes; the same as zlib's crc32(). */
uint32_t shmlog_crc32(uint32_t crc, const void *data, size_t bytes);

#endif
