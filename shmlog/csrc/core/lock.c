#include "lock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#if defined(__APPLE__) && !defined(F_OFD_SETLK)
/* In the kernel of macOS, but not in its public header. */
#define F_OFD_SETLK 90
#define F_OFD_GETLK 92
#endif

int shmlog_lock_open(const char *path) { return open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW); }

enum { PIN_BYTES = 1 }; /* a page, of whatever size */

/* ---- descriptions ---- */

int shmlog_description_keep(shmlog_description *description, int fd)
{
    static _Atomic int marks;
    struct stat status;
    /* relaxed: it only has to be another one each time. */
    off_t mark = 1 + atomic_fetch_add_explicit(&marks, 1, memory_order_relaxed);
    if (fstat(fd, &status) != 0 || lseek(fd, mark, SEEK_SET) != mark) {
        return errno;
    }
    *description = (shmlog_description){fd, status.st_dev, status.st_ino, mark, NULL};
    return 0;
}

void shmlog_description_pin(shmlog_description *description)
{
#if defined(MADV_DONTFORK)
    void *page = mmap(NULL, PIN_BYTES, PROT_NONE, MAP_SHARED, description->fd, 0);
    if (page != MAP_FAILED && madvise(page, PIN_BYTES, MADV_DONTFORK) == 0) {
        description->pin = page;
    } else if (page != MAP_FAILED) {
        munmap(page, PIN_BYTES);
    }
#else
    (void)description;
#endif
}

bool shmlog_description_is_of_file(const shmlog_description *description, int fd)
{
    struct stat status;
    return fstat(fd, &status) == 0 && status.st_dev == description->device && status.st_ino == description->inode;
}

bool shmlog_description_is_there(const shmlog_description *description)
{
    int fd = description->fd;
    return fd >= 0 && shmlog_description_is_of_file(description, fd) && lseek(fd, 0, SEEK_CUR) == description->mark;
}

void shmlog_description_close(shmlog_description *description)
{
    if (shmlog_description_is_there(description)) {
        close(description->fd);
    }
    if (description->pin) {
        munmap(description->pin, PIN_BYTES);
    }
    description->fd = -1;
    description->pin = NULL;
}

/* Open the file behind a descriptor. */
static int open_again(int fd)
{
#if defined(__linux__)
    /* Opening the link makes a new description of the same file, also when its
     * name is gone or lies in another mount namespace. No snprintf: it is not
     * async-signal-safe. */
    char link[32] = "/proc/self/fd/";
    char digits[12];
    int count = 0;
    size_t end = strlen(link);
    unsigned rest = (unsigned)fd;
    do {
        digits[count++] = (char)('0' + rest % 10);
        rest /= 10;
    } while (rest);
    while (count) {
        link[end++] = digits[--count];
    }
    link[end] = '\0';
    return open(link, O_RDWR | O_CLOEXEC);
#else
    (void)fd;
    return -1;
#endif
}

int shmlog_description_reopen(const shmlog_description *description, const char *path)
{
    int fd = shmlog_description_is_there(description) ? open_again(description->fd) : -1;
    if (fd < 0) {
        fd = shmlog_lock_open(path);
    }
    if (fd >= 0 && !shmlog_description_is_of_file(description, fd)) {
        close(fd);
        fd = -1;
        errno = ENOENT;
    }
    return fd;
}

/* ---- locks ---- */

static struct flock one_byte(int byte, short type)
{
    struct flock lock;
    memset(&lock, 0, sizeof lock); /* l_pid must be 0 */
    lock.l_type = type;
    lock.l_whence = SEEK_SET;
    lock.l_start = byte;
    lock.l_len = 1;
    return lock;
}

static int set(int fd, int byte, short type)
{
    struct flock lock = one_byte(byte, type);
    while (fcntl(fd, F_OFD_SETLK, &lock) != 0) {
        if (errno == EACCES) {
            return EAGAIN;
        }
        if (errno != EINTR) {
            return errno;
        }
    }
    return 0;
}

int shmlog_lock_take(int fd, int byte, bool exclusive) { return set(fd, byte, exclusive ? F_WRLCK : F_RDLCK); }

int shmlog_lock_drop(int fd, int byte) { return set(fd, byte, F_UNLCK); }

int shmlog_lock_probe(int fd, int byte)
{
    struct flock lock = one_byte(byte, F_WRLCK);
    while (fcntl(fd, F_OFD_GETLK, &lock) != 0) {
        if (errno != EINTR) {
            return -1;
        }
    }
    return lock.l_type == F_UNLCK ? SHMLOG_LOCK_FREE
                                  : lock.l_type == F_RDLCK ? SHMLOG_LOCK_SHARED : SHMLOG_LOCK_EXCLUSIVE;
}
