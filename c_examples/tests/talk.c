/*
 * talk.c - sends its standard input and prints the received data, on plain BSD
 * sockets: a client for the tests
 *
 *     talk 127.0.0.1:PORT
 *
 * The end of its input shuts down its side of the connection (FIN). It exits at
 * the server's end of stream. Exit status: 0 end of stream, 3 reset, 1 failed.
 */
#define _POSIX_C_SOURCE 200809L
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int failed(const char *what)
{
    int reset = errno == ECONNRESET || errno == EPIPE;

    fprintf(stderr, "talk: %s: %s\n", what, strerror(errno));
    return reset ? 3 : 1;
}

int main(int argc, char **argv)
{
    static char out[65536], in[65536];
    size_t len = 0, sent = 0; /* bytes in out */
    int ended = 0;
    struct sockaddr_in address = { 0 };
    const char *port = argc == 2 ? strrchr(argv[1], ':') : NULL;
    int connection = socket(AF_INET, SOCK_STREAM, 0);
    struct pollfd fds[2] = { { -1, POLLIN, 0 }, { connection, 0, 0 } };

    signal(SIGPIPE, SIG_IGN);
    address.sin_family = AF_INET;
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons((uint16_t)(port != NULL ? strtoul(port + 1, NULL, 10) : 0));
    if (connection < 0 || connect(connection, (struct sockaddr *)&address, sizeof address) != 0)
        return failed("connect");

    for (;;) {
        /* poll ignores a negative descriptor. */
        fds[0].fd = sent < len || ended ? -1 : 0;
        fds[1].events = sent < len ? POLLIN | POLLOUT : POLLIN;
        if (poll(fds, 2, -1) < 0)
            return failed("poll");

        if (fds[1].revents & (POLLIN | POLLHUP | POLLERR)) {
            ssize_t got = recv(connection, in, sizeof in, 0);

            if (got == 0)
                return 0;
            if (got < 0)
                return failed("recv");
            for (ssize_t done = 0, n; done < got; done += n) {
                n = write(1, in + done, (size_t)(got - done));
                if (n < 0)
                    return failed("write");
            }
        }
        if (fds[1].revents & POLLOUT) {
            ssize_t n = send(connection, out + sent, len - sent, MSG_DONTWAIT);

            if (n > 0)
                sent += (size_t)n;
            else if (errno != EAGAIN && errno != EWOULDBLOCK)
                return failed("send");
        }
        if (fds[0].revents != 0) {
            ssize_t n = read(0, out, sizeof out);

            sent = 0;
            len = n > 0 ? (size_t)n : 0;
            if (n <= 0) {
                ended = 1;
                shutdown(connection, SHUT_WR);
            }
        }
    }
}
