/* Any bytes as the footer of a part: what is found lies in it, and a row group that is moved is the same one (I11). */
#include "footer.h"
#include "require.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void move(const shmlog_footer *footer, size_t at, const shmlog_row_group *group)
{
    size_t room = shmlog_footer_move(footer, at, 4096, NULL);
    unsigned char *moved = malloc(room + 1);
    if (room) {
        REQUIRE(shmlog_footer_move(footer, at, 4096, moved) == room);
    }
    if (room && group) {
        shmlog_row_group found;
        shmlog_footer there = {.data = moved, .size = room};
        if (shmlog_footer_group(&there, 0, 1, &found)) {
            REQUIRE(found.end == room && found.rows == group->rows);
            REQUIRE(found.has_low == group->has_low && found.low_size == group->low_size);
        }
    }
    free(moved);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    shmlog_footer footer = {.data = memcpy(malloc(size + 1), data, size), .size = size};
    shmlog_footer_parts parts;
    shmlog_row_group group;
    if (shmlog_footer_find(&footer, &parts)) {
        REQUIRE(parts.schema_end <= parts.groups && parts.groups <= size);
        size_t at = parts.groups;
        for (uint64_t i = 0; i < parts.count && shmlog_footer_group(&footer, at, 1, &group); i++, at = group.end) {
            REQUIRE(group.begin == at && at < group.end && group.end <= size && group.rows >= 0);
            REQUIRE(0 <= group.pages_begin && group.pages_begin <= group.pages_end);
            REQUIRE(!group.has_low || group.low_size <= size - group.low);
            REQUIRE(!group.has_high || group.high_size <= size - group.high);
            move(&footer, at, &group);
        }
    }
    move(&footer, size / 2, NULL);
    free((unsigned char *)footer.data);
    return 0;
}
