/* Any bytes as pages of a part: what is read lies in them, and what is taken for texts is as long as it says (I11). */
#include "pages.h"
#include "require.h"

#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { ROOM_MAX = 8192 };

static void take_texts(const shmlog_page *page, const unsigned char *body, size_t size)
{
    size_t bytes = page->plain_bytes % ROOM_MAX;
    unsigned char *room = malloc(bytes);
    if (shmlog_page_has_texts(body, size, room, bytes, page->values)) {
        REQUIRE((uint64_t)page->values * 4 <= bytes);
    }
    free(room);
}

static void check_file(const shmlog_page *page, const uint8_t *data, size_t size)
{
    static int fd = -1;
    fd = fd < 0 ? memfd_create("pages", MFD_CLOEXEC) : fd;
    REQUIRE(ftruncate(fd, 0) == 0 && pwrite(fd, data, size, 0) == (ssize_t)size);
    unsigned char encodings[] = {(unsigned char)page->encoding, 8 | SHMLOG_PAGE_TEXTS, 8};
    shmlog_page_group groups[] = {{0, page->values, (int64_t)page->plain_bytes}, {(int64_t)size / 2, 3, 100}};
    shmlog_page_layout layout = {.groups = groups, .group_count = 2, .encodings = encodings, .columns = 3};
    uint64_t place = 0;
    REQUIRE(shmlog_pages_check(fd, &layout, &place) != SHMLOG_PAGES_UNREADABLE);
    REQUIRE(place <= size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    unsigned char *copy = malloc(size);
    if (size) {
        memcpy(copy, data, size);
    }
    shmlog_page page;
    size_t header = shmlog_page_read(copy, size, &page);
    REQUIRE(header <= size && header <= SHMLOG_PAGE_HEADER_MAX);
    if (header) {
        REQUIRE(0 <= page.values && page.values <= INT32_MAX);
        REQUIRE(page.packed_bytes <= INT32_MAX && page.plain_bytes <= INT32_MAX);
        take_texts(&page, copy + header, size - header);
        check_file(&page, copy, size);
    }
    free(copy);
    return 0;
}
