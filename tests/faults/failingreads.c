/* LD_PRELOAD: one call that reads below a folder, its files or their names, fails. failing_reads.py sets which. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

char reads_below[PATH_MAX]; /* empty: nothing fails, and nothing is counted */
long reads_seen, reads_fail_at, reads_error;
char reads_failed[PATH_MAX]; /* out: the call that has failed, and its file */

static bool fails(const char *call, const char *path)
{
    size_t length = strlen(reads_below);
    if (length == 0 || strncmp(path, reads_below, length) != 0) {
        return false;
    }
    if (++reads_seen != reads_fail_at) {
        return false;
    }
    snprintf(reads_failed, sizeof reads_failed, "%s %s", call, path + length);
    errno = (int)reads_error;
    return true;
}

static bool fails_at(const char *call, int folder, const char *name)
{
    if (name[0] == '/') {
        return fails(call, name);
    }
    char link[64], path[PATH_MAX];
    if (folder == AT_FDCWD) {
        strcpy(link, "/proc/self/cwd");
    } else {
        snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
    }
    ssize_t length = syscall(SYS_readlinkat, AT_FDCWD, link, path, sizeof path - NAME_MAX - 2);
    if (length < 0) {
        return false;
    }
    snprintf(path + length, sizeof path - (size_t)length, "%s%.*s", name[0] ? "/" : "", NAME_MAX, name);
    return fails(call, path);
}

static bool fails_on(const char *call, int fd)
{
    return reads_below[0] && fails_at(call, fd, "");
}

static int open_at(int folder, const char *path, int flags, mode_t mode)
{
    bool reads = (flags & O_ACCMODE) == O_RDONLY;
    return reads && fails_at("open", folder, path) ? -1 : (int)syscall(SYS_openat, folder, path, flags, mode);
}

#define OPEN(name)                                   \
    int name(const char *path, int flags, ...)       \
    {                                                \
        va_list rest;                                \
        va_start(rest, flags);                       \
        mode_t mode = va_arg(rest, mode_t);          \
        va_end(rest);                                \
        return open_at(AT_FDCWD, path, flags, mode); \
    }
OPEN(open)
OPEN(open64)

ssize_t read(int fd, void *into, size_t bytes)
{
    return fails_on("read", fd) ? -1 : syscall(SYS_read, fd, into, bytes);
}

ssize_t pread64(int fd, void *into, size_t bytes, off64_t from)
{
    return fails_on("pread", fd) ? -1 : syscall(SYS_pread64, fd, into, bytes, from);
}

#define STAT(name, type, flags)                                                                                   \
    int name(const char *path, struct type *status)                                                               \
    {                                                                                                             \
        return fails_at(#name, AT_FDCWD, path) ? -1 : (int)syscall(SYS_newfstatat, AT_FDCWD, path, status, flags); \
    }
STAT(stat, stat, 0)
STAT(stat64, stat64, 0)
STAT(lstat, stat, AT_SYMLINK_NOFOLLOW)
STAT(lstat64, stat64, AT_SYMLINK_NOFOLLOW)

#define FSTAT(name, type)                                                        \
    int name(int fd, struct type *status)                                        \
    {                                                                            \
        return fails_on("fstat", fd) ? -1 : (int)syscall(SYS_fstat, fd, status); \
    }
FSTAT(fstat, stat)
FSTAT(fstat64, stat64)

DIR *opendir(const char *path)
{
    static DIR *(*next)(const char *);
    if (!next) {
        *(void **)&next = dlsym(RTLD_NEXT, "opendir");
    }
    return fails_at("opendir", AT_FDCWD, path) ? NULL : next(path);
}

struct dirent64 *readdir64(DIR *folder)
{
    static struct dirent64 *(*next)(DIR *);
    if (!next) {
        *(void **)&next = dlsym(RTLD_NEXT, "readdir64");
    }
    return fails_on("readdir", dirfd(folder)) ? NULL : next(folder);
}
