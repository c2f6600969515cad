/* raw_connect PORT CONNECTIONS MESSAGES READ_TIMEOUT_MS - plain C: no deadline, no timeout */
#define _GNU_SOURCE
#include "raw_connect.h"

int main(int argc, char **argv)
{
    return run(argc, argv, 0);
}
