/*
 * activate.c - starts a program with a socket, as systemd does: for the tests
 *
 *     activate KIND ADDRESS PROGRAM ARGUMENT...
 *
 * KIND is tcp (ADDRESS: an IPv4 address, any port), unix (a path), udp (as tcp) or file (a
 * path). The program gets it as descriptor 3, and the variables LISTEN_PID, LISTEN_FDS
 * and LISTEN_FDNAMES, which is "main".
 */
#define _POSIX_C_SOURCE 200809L
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static int make(const char *kind, const char *where)
{
    struct sockaddr_in inet = { 0 };
    struct sockaddr_un path = { 0 };
    int fd;

    if (strcmp(kind, "file") == 0)
        return open(where, O_RDONLY);
    if (strcmp(kind, "unix") == 0) {
        path.sun_family = AF_UNIX;
        strncpy(path.sun_path, where, sizeof path.sun_path - 1);
        fd = socket(AF_UNIX, SOCK_STREAM, 0);
        if (bind(fd, (struct sockaddr *)&path, sizeof path) != 0 || listen(fd, 128) != 0)
            return -1;
        return fd;
    }
    inet.sin_family = AF_INET;
    inet.sin_addr.s_addr = inet_addr(where);
    fd = socket(AF_INET, strcmp(kind, "udp") == 0 ? SOCK_DGRAM : SOCK_STREAM, 0);
    if (bind(fd, (struct sockaddr *)&inet, sizeof inet) != 0)
        return -1;
    return strcmp(kind, "udp") == 0 || listen(fd, 128) == 0 ? fd : -1;
}

int main(int argc, char **argv)
{
    char pid[32];
    int fd = argc > 3 ? make(argv[1], argv[2]) : -1;

    if (fd < 0 || (fd != 3 && (dup2(fd, 3) < 0 || close(fd) != 0))) {
        fprintf(stderr, "activate: %s\n", strerror(errno));
        return 1;
    }
    snprintf(pid, sizeof pid, "%ld", (long)getpid());
    setenv("LISTEN_PID", pid, 1);
    setenv("LISTEN_FDS", "1", 1);
    setenv("LISTEN_FDNAMES", "main", 1);
    execvp(argv[3], argv + 3);
    fprintf(stderr, "activate: %s: %s\n", argv[3], strerror(errno));
    return 127;
}
