/* Syncs of InnoDB's redo log, or of PostgreSQL's WAL, wait for as long as the file that
   BYRE_TEST_GATE names exists.

   Preloaded into a database. Other files are synced at once: what syncs them holds latches that
   nobody may have to wait for. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void wait_for_gate(int fd) {
    const char *gate = getenv("BYRE_TEST_GATE");
    char link[64], name[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, name, sizeof name - 1);
    if (gate == NULL || length < 0) return;
    name[length] = 0;
    if (strstr(name, "ib_logfile") == NULL && strstr(name, "/pg_wal/") == NULL) return;
    while (access(gate, F_OK) == 0) usleep(5000);
}

int fsync(int fd) {
    static int (*real)(int);
    if (real == NULL) real = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
    wait_for_gate(fd);
    return real(fd);
}

int fdatasync(int fd) {
    static int (*real)(int);
    if (real == NULL) real = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
    wait_for_gate(fd);
    return real(fd);
}
