"""Shards at an address: each file crosses the network once per machine, into a folder of this machine.

address     what an address is, and which are refused
scratch     the folder of this machine that holds the copies, and how large they may be together
transfer    the bytes of one file, over http(s), from S3, GCS or the Hugging Face hub, or from a command
redirects   where a web server may lead, and why a request failed
filesystems those of object stores: keys, regions, proxies
place       which folder of this machine stands for an address
mirror      the description and the index of a data set in that folder
store       the shards in that folder: locks, room, and the check of what arrives
uses        when each shard is needed next, from the order of training, published for all processes
fetcher     the threads of a process that fetch ahead of that order
upload      a packed folder to an address
stage       all shards of a data set, before a job
"""
