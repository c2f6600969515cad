/*
 * raw_connect_name PORT CONNECTIONS 0 0 HOST - plain C: getaddrinfo, and a connect to each address
 *
 * No options and no deadline: what a program needs at least.
 */
#include "client.h"
#include <netdb.h>
#include <sys/socket.h>

static int connect_to(const char *host, const char *port)
{
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM}, *all, *one;
    int fd = -1;

    if (getaddrinfo(host, port, &hints, &all) != 0)
        return -1;
    for (one = all; one != NULL && fd < 0; one = one->ai_next) {
        fd = socket(one->ai_family, one->ai_socktype | SOCK_CLOEXEC, one->ai_protocol);
        if (fd >= 0 && connect(fd, one->ai_addr, one->ai_addrlen) != 0) {
            close(fd);
            fd = -1;
        }
    }
    freeaddrinfo(all);
    return fd;
}

int main(int argc, char **argv)
{
    struct task task = task_of(argc, argv);

    while (task.connections-- > 0) {
        int fd = connect_to(task.host, argv[1]);

        if (fd < 0) {
            perror("connect");
            return 1;
        }
        close(fd);
    }
    return 0;
}
