/*
 * load.c - many short connections, on bare BSD sockets: a client for the tests
 *
 *     load ENDPOINT CONNECTIONS THREADS
 *
 * ENDPOINT is 127.0.0.1:PORT or unix:PATH. Each connection sends a line, and expects the
 * same line and then the end of the stream. Prints the number of connections, and how many
 * were refused, reset, answered in part or failed otherwise. The server closes first, so
 * TIME-WAIT blocks no port of this side. Exit status: 0 each connection was answered,
 * 1 not.
 */
#define _POSIX_C_SOURCE 200809L
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

struct counts {
    long made, refused, reset, cut, failed;
};

static union {
    struct sockaddr any;
    struct sockaddr_in inet;
    struct sockaddr_un path;
} address;
static socklen_t address_len;
static long wanted;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct counts total;

static void count_error(struct counts *counts, const char *what)
{
    if (errno == ECONNREFUSED || errno == ENOENT) {
        counts->refused++;
    } else if (errno == ECONNRESET || errno == EPIPE) {
        counts->reset++;
    } else {
        counts->failed++;
    }
    if (counts->refused + counts->reset + counts->failed < 3)
        fprintf(stderr, "load: %s: %s\n", what, strerror(errno));
}

static void request(struct counts *counts, long number)
{
    const struct timeval limit = { 10, 0 };
    char line[32], reply[64];
    size_t len, got = 0;
    ssize_t n;
    int connection = socket(address.any.sa_family, SOCK_STREAM, 0);

    counts->made++;
    len = (size_t)snprintf(line, sizeof line, "line %ld\n", number);
    if (connection < 0) {
        count_error(counts, "socket");
        return;
    }
    setsockopt(connection, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    setsockopt(connection, SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit); /* also for connect */
    if (connect(connection, &address.any, address_len) != 0) {
        count_error(counts, "connect");
    } else if (send(connection, line, len, MSG_NOSIGNAL) != (ssize_t)len) {
        count_error(counts, "send");
    } else {
        while ((n = recv(connection, reply + got, sizeof reply - got, 0)) > 0)
            got += (size_t)n;
        if (n < 0)
            count_error(counts, "recv");
        else if (got != len || memcmp(line, reply, len) != 0)
            counts->cut++;
    }
    close(connection);
}

static void *work(void *unused)
{
    struct counts counts = { 0, 0, 0, 0, 0 };
    long number;

    (void)unused;
    for (;;) {
        pthread_mutex_lock(&lock);
        number = wanted > 0 ? wanted-- : 0;
        pthread_mutex_unlock(&lock);
        if (number == 0)
            break;
        request(&counts, number);
    }
    pthread_mutex_lock(&lock);
    total.made += counts.made;
    total.refused += counts.refused;
    total.reset += counts.reset;
    total.cut += counts.cut;
    total.failed += counts.failed;
    pthread_mutex_unlock(&lock);
    return NULL;
}

int main(int argc, char **argv)
{
    pthread_t threads[64];
    const char *port;
    int i, count;

    if (argc != 4) {
        fprintf(stderr, "usage: load ENDPOINT CONNECTIONS THREADS\n");
        return 2;
    }
    if (strncmp(argv[1], "unix:", 5) == 0) {
        address.path.sun_family = AF_UNIX;
        strncpy(address.path.sun_path, argv[1] + 5, sizeof address.path.sun_path - 1);
        address_len = sizeof address.path;
    } else {
        port = strrchr(argv[1], ':');
        address.inet.sin_family = AF_INET;
        address.inet.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        address.inet.sin_port = htons((uint16_t)(port != NULL ? strtoul(port + 1, NULL, 10) : 0));
        address_len = sizeof address.inet;
    }
    wanted = strtol(argv[2], NULL, 10);
    count = (int)strtol(argv[3], NULL, 10);
    if (count < 1 || count > 64)
        return 2;
    for (i = 0; i < count; i++) {
        if (pthread_create(&threads[i], NULL, work, NULL) != 0)
            return 1;
    }
    for (i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
    printf("%ld connections: %ld refused, %ld reset, %ld cut short, %ld failed\n", total.made,
        total.refused, total.reset, total.cut, total.failed);
    return total.refused + total.reset + total.cut + total.failed > 0;
}
