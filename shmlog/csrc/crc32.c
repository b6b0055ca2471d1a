/* Slicing by 16: sixteen table look-ups for sixteen bytes, which do not depend
 * on each other. Source: M. E. Kounavis and F. L. Berry, "Novel Table
 * Lookup-Based Algorithms for High-Performance CRC Generation", IEEE
 * Transactions on Computers 57(11), 2008. */
#include "crc32.h"

#include <pthread.h>
#include <string.h>

enum { SLICES = 16 };

static uint32_t table[SLICES][256];
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void make_table(void)
{
    for (uint32_t byte = 0; byte < 256; byte++) {
        uint32_t crc = byte;
        for (int bit = 0; bit < 8; bit++) {
            crc = crc >> 1 ^ (crc & 1u ? UINT32_C(0xedb88320) : 0u);
        }
        table[0][byte] = crc;
    }
    for (int slice = 1; slice < SLICES; slice++) {
        for (uint32_t byte = 0; byte < 256; byte++) {
            uint32_t crc = table[slice - 1][byte];
            table[slice][byte] = crc >> 8 ^ table[0][crc & 0xffu];
        }
    }
}

static uint32_t four(int slice, uint32_t word)
{
    return table[slice + 3][word & 0xffu] ^ table[slice + 2][word >> 8 & 0xffu] ^
           table[slice + 1][word >> 16 & 0xffu] ^ table[slice][word >> 24];
}

uint32_t shmlog_crc32(uint32_t crc, const void *data, size_t bytes)
{
    const unsigned char *next = data;
    pthread_once(&once, make_table);

    crc = ~crc;
    while (bytes >= SLICES) {
        uint32_t word[4];
        memcpy(word, next, sizeof word);
        crc = four(12, word[0] ^ crc) ^ four(8, word[1]) ^ four(4, word[2]) ^ four(0, word[3]);
        next += SLICES;
        bytes -= SLICES;
    }
    while (bytes--) {
        crc = crc >> 8 ^ table[0][(crc ^ *next++) & 0xffu];
    }
    return ~crc;
}
