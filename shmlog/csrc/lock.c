#include "lock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#if defined(__APPLE__) && !defined(F_OFD_SETLK)
/* In the kernel of macOS, but not in its public header. */
#define F_OFD_SETLK 90
#define F_OFD_GETLK 92
#endif

int shmlog_lock_open(const char *path) { return open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW); }

int shmlog_lock_reopen(int fd, const char *path)
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
    int fresh = open(link, O_RDWR | O_CLOEXEC);
    if (fresh >= 0) {
        return fresh;
    }
#else
    (void)fd;
#endif
    return shmlog_lock_open(path);
}

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
